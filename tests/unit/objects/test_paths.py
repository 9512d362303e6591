"""`CID[/path]` as people write it."""

from __future__ import annotations

import pytest

from fungistor.errors import InvalidError
from fungistor.objects.paths import SEGMENTS_MAX, parse_cid_path

CID = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        (CID, ()),
        (f"/ipfs/{CID}/", ()),
        (f"ipfs://{CID}/a/b.txt", ("a", "b.txt")),
        (f"{CID}//a//", ("a",)),
        (f"{CID}/50%25 off", ("50%25 off",)),
    ],
)
def test_every_common_spelling_is_taken(text: str, segments: tuple[str, ...]) -> None:
    """With or without a prefix, with doubled slashes, and with names that are never percent-decoded."""
    path = parse_cid_path(text)
    assert (str(path.cid), path.segments) == (CID, segments)


@pytest.mark.parametrize("text", ["", "/", "/ipfs/", "notacid", "notacid/a", CID + "/a" * (SEGMENTS_MAX + 1)])
def test_what_is_no_path_is_refused_with_the_next_step(text: str) -> None:
    """The message names what was given, and a hint says what to give."""
    with pytest.raises(InvalidError) as caught:
        parse_cid_path(text)
    assert caught.value.hint or "longer than" in caught.value.message
