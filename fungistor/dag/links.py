"""The links of any block, whatever its codec."""

from __future__ import annotations

from fungistor.dag import dag_pb, ipld
from fungistor.dag.cid import CID, DAG_CBOR, DAG_JSON, DAG_PB


def links(cid: CID, data: bytes) -> list[CID]:
    """Return a block's links in the order in which they stand, repeated ones repeated.

    Blocks of codecs that have none, or that are not known here, have none.

    Raises:
        CorruptError: the block is not what its codec says.
    """
    if cid.codec == DAG_PB:
        spans, _ = dag_pb.scan(data)
        return [dag_pb.decode_link(data, span).cid for span in spans]
    if cid.codec in (DAG_CBOR, DAG_JSON):
        return ipld.links(cid.codec, data)
    return []
