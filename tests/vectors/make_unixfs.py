"""Makes unixfs.json: inputs and the CIDs that Kubo or the UnixFS specification publish for them, and small blocks.

The CIDs of `streams`, `directories` and `trees` are copied from the tests of Kubo, the gateway conformance suite and
IPIP-499, never computed here, but for those marked `"published": false`. `root_block` is ours, so that a change of
one byte shows as such.
Run `python -m tests.vectors.make_unixfs` to write the file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fungistor.dag import PROFILES, Block
from tests.unit.dag.trees import Tree, import_tree

STORED = Path(__file__).with_name("unixfs.json")
V0, V1, KUBO = "unixfs-v0-2015", "unixfs-v1-2025", "kubo-cidv1"
KIB, MIB = 1 << 10, 1 << 20

STREAMS = [
    (V0, "chunk-v0-seed", 256 * KIB, "QmWmRj3dFDZdb6ABvbmKhEL6TmPbAfBZ1t5BxsEyJrcZhE"),
    (V0, "chunk-v0-seed", 256 * KIB + 1, "QmYyLxtzZyW22zpoVAtKANLRHpDjZtNeDjQdJrcQNWoRkJ"),
    (V0, "v0-seed", 174 * 256 * KIB, "QmUbBALi174SnogsUzLpYbD4xPiBSFANF4iztWCsHbMKh2"),
    (V0, "v0-seed", 174 * 256 * KIB + 1, "QmV81WL765sC8DXsRhE5fJv2rwhS4icHRaf3J9Zk5FdRnW"),
    (V1, "chunk-v1-seed", MIB, "bafkreiacndfy443ter6qr2tmbbdhadvxxheowwf75s6zehscklu6ezxmta"),
    (V1, "chunk-v1-seed", MIB + 1, "bafybeigmix7t42i6jacydtquhet7srwvgpizfg7gjbq7627d35mjomtu64"),
    (V1, "v1-2025-seed", 1024 * MIB, "bafybeihmf37wcuvtx4hpu7he5zl5qaf2ineo2lqlfrapokkm5zzw7zyhvm"),
    (V1, "v1-2025-seed", 1024 * MIB + 1, "bafybeibdsi225ugbkmpbdohnxioyab6jsqrmkts3twhpvfnzp77xtzpyhe"),
]
STREAMS_UNPUBLISHED = [
    (KUBO, "chunk-v0-seed", 256 * KIB, "bafkreid33n22tcydu7pk2egzkyq4phh5mjwhyf6son6zggnlnlyi3257um"),
    (KUBO, "chunk-v0-seed", 256 * KIB + 1, "bafybeibyui7o3sbw3yifnewshhrbnuntcehluzvbkwgi5vmtsdobnc2c6y"),
    (KUBO, "v0-seed", 174 * 256 * KIB, "bafybeidajp2ewrtxcagm2u3qstbk2kw5srzbu7g7oraqepajpgumviz3z4"),
    (KUBO, "v0-seed", 174 * 256 * KIB + 1, "bafybeifr472xiwfk53w5s7bayijk3lq2go6ocqqcfch6ygy5qwza5hkdl4"),
]

DIRECTORIES = [
    (V0, "hamt-unixfs-v0-2015", [[4096, 30]], False, "QmX5GtRk3TSSEHtdrykgqm4eqMEn3n2XhfkFAis5fjyZmN"),
    (V0, "hamt-unixfs-v0-2015", [[4033, 31]], True, "QmeMiJzmhpJAUgynAcxTQYek5PPKgdv3qEvFsdV3XpVnvP"),
    (
        V1,
        "hamt-unixfs-v1-2025",
        [[4765, 11], [1, 21]],
        False,
        "bafybeic3h7rwruealwxkacabdy45jivq2crwz6bufb5ljwupn36gicplx4",
    ),
    (
        V1,
        "hamt-unixfs-v1-2025",
        [[4765, 11], [1, 22]],
        True,
        "bafybeiegvuterwurhdtkikfhbxcldohmxp566vpjdofhzmnhv6o4freidu",
    ),
]


def _dir(**entries: Tree) -> Tree:
    return {"entries": entries}


def _text(text: str) -> Tree:
    return {"text": text}


def _wrapped(name: str, child: Tree) -> Tree:
    return {"entries": {name: child}}


_LISTING = {
    "entries": {
        "api": _wrapped("file.txt", _text("I am a txt file in confusing /api dir\n")),
        "ipfs": _wrapped("file.txt", _text("I am a txt file in confusing /ipfs dir\n")),
        "ipns": _wrapped("file.txt", _text("I am a txt file in confusing /ipns dir\n")),
        "ą": _wrapped("ę", _wrapped("file-źł.txt", _text("I am a txt file on path with utf8\n"))),
    }
}
_LISTING_JSON = {
    "entries": {
        **_LISTING["entries"],
        "ą": _wrapped(
            "ę",
            {
                "entries": {
                    "file-źł.txt": _text("I am a txt file on path with utf8\n"),
                    "t.json": _text('{ "test": "i am a plain json file" }\n'),
                }
            },
        ),
    }
}
_SYMLINKS = _dir(
    foo=_dir(baz=_text("some text\n")),
    bar=_dir(baz={"symlink": "files/foo/baz"}),
    bad={"symlink": "files/does/not/exist"},
)
_PLANETS = {"entries": {"mars.txt": _text("Hello Mars!\n"), "venus.txt": _text("Hello Venus!\n")}}
_MOONS = {
    "entries": {
        "jupiter": _wrapped("europa.txt", _text("Hello Europa!\n")),
        "saturn": _wrapped("titan.txt", _text("Hello Titan!\n")),
        "mercury.txt": _text("hey you are no moon!\n"),
    }
}
_AT = 1655158632
_STAT = {
    "mode": 0o700,
    "mtime": [_AT, 0],
    "entries": {
        "dir1": {"entries": {}, "mode": 0o755, "mtime": [_AT + 90, 0]},
        "dir2": {
            "mode": 0o755,
            "mtime": [_AT + 50, 0],
            "entries": {
                "sub1": {
                    "mode": 0o755,
                    "mtime": [_AT + 40, 0],
                    "entries": {
                        "link1": {"symlink": "../sub2/file3", "mode": 0o777, "mtime": [_AT + 20, 0]},
                        "sub2": {
                            "mode": 0o755,
                            "mtime": [_AT + 30, 0],
                            "entries": {"file3": {"text": "", "mode": 0o644, "mtime": [_AT + 10, 0]}},
                        },
                    },
                }
            },
        },
        "dir3": {
            "mode": 0o755,
            "mtime": [_AT + 70, 0],
            "entries": {"file2": {"text": "", "mode": 0o644, "mtime": [_AT + 60, 0]}},
        },
        "file1": {"text": "", "mode": 0o644, "mtime": [_AT + 80, 0]},
    },
}

TREES: list[tuple[str, str, Tree, str]] = [
    ("hello world", V0, _text("hello world"), "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"),
    ("hello world", V1, _text("hello world"), "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"),
    ("hello line", KUBO, _text("hello\n"), "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am"),
    ("test", V1, _text("test"), "bafkreie7q3iidccmpvszul7kudcvvuavuo7u6gzlbobczuk5nqk3b4akba"),
    ("empty file", V0, _text(""), "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
    ("empty file", V1, _text(""), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
    ("empty directory", V0, _dir(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn"),
    ("empty directory", V1, _dir(), "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"),
    ("nested names in UTF-8", KUBO, _LISTING, "bafybeig6ka5mlwkl4subqhaiatalkcleo4jgnr3hqwvpmsqfca27cijp3i"),
    ("two files in UTF-8", KUBO, _LISTING_JSON, "bafybeiafyvqlazbbbtjnn6how5d6h6l6rxbqc4qgpbmteaiskjrffmyy4a"),
    (
        "wrapped directory",
        KUBO,
        _dir(dir=_wrapped("ascii.txt", _text("hello application/vnd.ipld.raw\n"))),
        "bafybeie72edlprgtlwwctzljf6gkn2wnlrddqjbkxo3jomh4n7omwblxly",
    ),
    (
        "deep directory",
        KUBO,
        _dir(root2=_dir(root3=_dir(root4=_wrapped("index.html", _text("hello\n"))))),
        "bafybeib3ffl2teiqdncv3mkz4r23b5ctrwkzrrhctdbne6iboayxuxk5ui",
    ),
    (
        "percent signs in a name",
        KUBO,
        _wrapped("Portugal%2C+España=Peninsula Ibérica.txt", _text("hello from a percent encoded filename\n")),
        "bafybeig675grnxcmshiuzdaz2xalm6ef4thxxds6o6ypakpghm5kghpc34",
    ),
    ("planets", V0, _PLANETS, "QmWSgS32xQEcXMeqd3YPJLrNBLSdsfYCep2U7CFkyrjXwY"),
    ("planets", KUBO, _PLANETS, "bafybeih7e5dmkyk25up5vxug4q3hrg2fxbzf23dfrac2fns5h7z4aa7ioi"),
    ("moons", V0, _MOONS, "QmbGoaQZm8kjYfCiN1aBsgwhqfUBGDYTrDb91Mz7Dvq81B"),
    ("symlink", V0, {"symlink": "files/foo/baz"}, "QmdocmZeF7qwPT9Z8SiVhMSyKA2KKoA2J7jToW6z6WBmxR"),
    ("dangling symlink", V0, {"symlink": "files/does/not/exist"}, "QmWYN8SEXCgNT2PSjB6BnxAx6NJQtazWoBkTRH9GRfPFFQ"),
    (
        "symlink to a file",
        V0,
        _dir(foo=_text("content\n"), bar={"symlink": "foo"}),
        "QmWvY6FaqFMS89YAQ9NAPjVP4WZKA1qbHbicc9HeSKQTgt",
    ),
    ("symlinks", V0, _SYMLINKS, "QmWdiHKoeSW8G1u7ATCgpx4yMoUhYaJBQGkyPLkS9goYZ8"),
    ("symlinks", KUBO, _SYMLINKS, "bafybeibyhlx64cklod6isy3h7tsmr4qvam3ae3b74n3hfes5bythjrwyua"),
    ("mode", V0, {"text": "", "mode": 0o640}, "QmQLgxypSNGNFTuUPGCecq6dDEjb6hNB5xSyVmP3cEuNtq"),
    ("time", V0, {"text": "", "mtime": [1604320482, 0]}, "QmQ6kErEW8kztQFV8vbwNU8E4dmtGsYpRiboiLxUEwibvj"),
    (
        "mode and time",
        V0,
        {"text": "", "mode": 0o640, "mtime": [1604320482, 0]},
        "QmYkvboLsvLFcSYmqVJRxvBdYRQLroLv9kELf3LRiCqBri",
    ),
    ("mode 0764", V0, {"text": "", "mode": 0o764}, "QmchD3BN8TQ3RW6jPLxSaNkqvfuj7syKhzTRmL4EpyY1Nz"),
    ("time 2020", V0, {"text": "", "mtime": [1603539720, 0]}, "QmT3aY4avDcYXCWpU8CJzqUkW7YEuEsx36S8cTNoLcuK1B"),
    ("nanoseconds", V0, {"text": "", "mtime": [1603539720, 54321]}, "QmaKH8H5rXBUBCX4vdxi7ktGQEL7wejV7L9rX2qpZjwncz"),
    (
        "mode and nanoseconds",
        V0,
        {"text": "", "mode": 0o764, "mtime": [1603539720, 54321]},
        "QmUkxrtBA8tPjwCYz1HrsoRfDz6NgKut3asVeHVQNH4C8L",
    ),
    (
        "time of a symlink",
        V0,
        {"symlink": "nothing", "mtime": [1604320482, 0]},
        "QmbJwotgtr84JxcnjpwJ86uZiyMoxbZuNH4YrdJMypkYaB",
    ),
    (
        "nanoseconds of a symlink whose mode is not kept",
        V0,
        {"symlink": "nothing", "mode": 0o777, "mtime": [1603539720, 54321]},
        "QmPHYCxYvvHj6VxiPNJ3kXxcPsnJLDYUJqsDJWjvytmrmY",
    ),
    ("mode of a directory", V0, {"entries": {}, "mode": 0o755}, "QmRviohgafvCsbkiTgfQFipbuXJ6k1YtoiaQW4quttJPKu"),
    (
        "time of a directory",
        V0,
        {"entries": {}, "mtime": [_AT + 90, 0]},
        "QmYMy7CZGb498QFSQBF5ZFwv1FYbrAtYZMe4VxhDXxAcvf",
    ),
    (
        "nanoseconds of a directory",
        V0,
        {"entries": {}, "mtime": [1603539720, 54321]},
        "QmZFdCLJay31hT3Tx1LygJ7XfiLEs3qLCXtbeBfhf38aZg",
    ),
    ("modes and times of a tree", V0, _STAT, "QmSioyvQuXetxg7uo8FswGn9XKKEsisDq1HTMzGyWbw2R6"),
]

MALFORMED = [
    ("no links, no data", ""),
    ("one link without data", "12240a2212207521fe19c374a97759226dc5c0c8e674e73950e81b211f7dd3b6b30883a08a51"),
    (
        "two links, data that is no UnixFS",
        (
            "12340a2212208ab7a6c5e74737878ac73863cb76739d15d4666de44e5756bf55a2f9e9ab5f431209736f6d65206c696e6b1880c2d72f"
            "12370a2212208ab7a6c5e74737878ac73863cb76739d15d4666de44e5756bf55a2f9e9ab5f44120f736f6d65206f74686572206c696e"
            "6b18080a09736f6d652064617461"
        ),
    ),
    ("data that is no UnixFS", "0a050001020304"),
    ("empty data", "0a00"),
    ("a link of a hash alone", "120b0a09015500050001020304"),
    ("a link of hash and name", "12160a090155000500010203041209736f6d65206e616d65"),
    ("a link with an empty name", "120d0a090155000500010203041200"),
    ("a link of hash and size", "12140a0901550005000102030418ffffffffffffff0f"),
    ("a link of hash and size 0", "120d0a090155000500010203041800"),
    ("three bytes of data", "0a03010203"),
    (
        "unsorted links without data",
        "120b0a0901550005000102030412100a09015500050001020304120362617212100a090155000500010203041203666f6f",
    ),
    (
        "equal names without data",
        "120b0a09015500050001020304120e0a09015500050001020304120161120e0a09015500050001020304120161",
    ),
    ("equal names without data, twice", "120e0a09015500050001020304120161120e0a09015500050001020304120161"),
]

_LEAF = "24015512205891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
_SHARD = "0a250805121c8000000000000000000000000000000000000000000000000000000028223080"
READABLE = [
    (
        "directory, data before links",
        "0a02080112330a" + _LEAF + "120968656c6c6f2e7478741806",
        "bafybeigqvyloizmfcdy6scaxnyltftzptaruqa3hnnplfzsbf4sqteiwlm",
    ),
    (
        "directory, links before data",
        "12330a" + _LEAF + "120968656c6c6f2e74787418060a020801",
        "bafybeigdcg7pksx2zk5336vrfsktjodlr4rbfz37qr3koc5xboxe5ekv24",
    ),
    (
        "sharded directory, data before links",
        _SHARD + "0212350a" + _LEAF + "120b444668656c6c6f2e7478741806",
        "bafybeicwgy2rlqmqqu3yy2tqvm2wbgdvy3snu4sbbv4wqpvpnoplpzxz74",
    ),
    (
        "sharded directory, links before data",
        "12350a" + _LEAF + "120b444668656c6c6f2e7478741806" + _SHARD + "02",
        "bafybeicjwkfslu7gwyywffvqgse5kiibojtktxcdqhgv7ldj5fjdacuceq",
    ),
]


def _root_block(profile: str, tree: Tree) -> Block:
    made: list[Block] = []
    import_tree(PROFILES[profile], tree, made.append)
    return made[-1]


def make() -> dict[str, Any]:
    """Return what unixfs.json holds."""
    return {
        "streams": [
            {"profile": profile, "seed": seed, "bytes": size, "cid": cid, "published": published}
            for published, cases in ((True, STREAMS), (False, STREAMS_UNPUBLISHED))
            for profile, seed, size, cid in cases
        ],
        "directories": [
            {"profile": profile, "seed": seed, "names": names, "sharded": sharded, "cid": cid}
            for profile, seed, names, sharded, cid in DIRECTORIES
        ],
        "trees": [
            {
                "name": name,
                "profile": profile,
                "tree": tree,
                "cid": cid,
                "root_block": _root_block(profile, tree).data.hex(),
            }
            for name, profile, tree, cid in TREES
        ],
        "readable": [{"name": name, "block": block, "cid": cid} for name, block, cid in READABLE],
        "malformed": [{"name": name, "block": block} for name, block in MALFORMED],
    }


def text() -> str:
    """Return unixfs.json as it is stored."""
    return json.dumps(make(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    STORED.write_text(text(), encoding="utf-8")
