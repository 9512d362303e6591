"""Pure: bytes to blocks to CIDs and back, identical to IPFS: dag-pb, UnixFS, import profiles, reader.

Text and numbers (`multibase`, `multihash`, `varint`, `cid`), block formats (`dag_pb`, `unixfs`, `hamt`, `ipld`,
`links`), writing (`profiles`, `importer`), and reading through the port `BlockSource` (`source`, `reader`, `walk`).
Nothing here does I/O; hashing of leaves is the caller's, in its threads. `fungistor.dag.links.links` is imported from
its module, whose name it has.
"""

from fungistor.dag.block import Block
from fungistor.dag.cid import (
    CBOR,
    CID,
    DAG_CBOR,
    DAG_JSON,
    DAG_PB,
    JSON,
    LIBP2P_KEY,
    RAW,
    sha256_multihash,
    verify,
)
from fungistor.dag.importer import (
    Emit,
    FileBuilder,
    FileRoot,
    Leaf,
    Link,
    build_directory,
    build_symlink,
    encode_leaf,
    import_file,
    leaf_cid,
)
from fungistor.dag.profiles import DEFAULT_PROFILE, PROFILES, Profile, profile_for
from fungistor.dag.reader import NodeInfo, describe, read_file
from fungistor.dag.source import BlockSource
from fungistor.dag.unixfs import Mtime
from fungistor.dag.walk import DirEntry, InsideBlockError, Resolution, entries, lookup, resolve

__all__ = [
    "CBOR",
    "CID",
    "DAG_CBOR",
    "DAG_JSON",
    "DAG_PB",
    "DEFAULT_PROFILE",
    "JSON",
    "LIBP2P_KEY",
    "PROFILES",
    "RAW",
    "Block",
    "BlockSource",
    "DirEntry",
    "Emit",
    "FileBuilder",
    "FileRoot",
    "InsideBlockError",
    "Leaf",
    "Link",
    "Mtime",
    "NodeInfo",
    "Profile",
    "Resolution",
    "build_directory",
    "build_symlink",
    "describe",
    "encode_leaf",
    "entries",
    "import_file",
    "leaf_cid",
    "lookup",
    "profile_for",
    "read_file",
    "resolve",
    "sha256_multihash",
    "verify",
]
