"""Key files: private from their first byte, whole or not there, refused when anything is off."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fungistor.errors import ConflictError, DeniedError, FailedError, FungiStorError, InvalidError, NotFoundError
from fungistor.keys.files import (
    ROOT_KEY_VARIABLE,
    decode_node_keys,
    decode_root_key,
    encode_node_keys,
    encode_root_key,
    load_node_keys,
    load_root_key,
    make_root_key,
    save_node_keys,
)
from tests.vectors.make_keys import NODE_KEYS, ROOT_KEY, TENANT_KEY


def secrets_of(text: str) -> list[str]:
    """Pieces of the test keys that a message must not hold, in the forms a slip would print."""
    keys = [ROOT_KEY, TENANT_KEY, NODE_KEYS.network_key, NODE_KEYS.signing_key]
    forms = [form for key in keys for form in (key.hex(), base64.b64encode(key).decode(), repr(key)[2:-1])]
    return [form for form in forms if form[:20] in text]


def test_a_made_root_key_is_private_and_loads(tmp_path: Path) -> None:
    """A new root key is mode 0600 whatever the umask, loads as it was drawn, and leaves nothing beside it."""
    path = tmp_path / "root.key"
    before = os.umask(0)
    try:
        made = make_root_key(str(path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert load_root_key(str(path), {}) == made
    assert os.listdir(tmp_path) == ["root.key"]


def test_a_root_key_is_never_overwritten(tmp_path: Path) -> None:
    """Of many first starts at once one makes the key, the others are a ConflictError, and all load the same."""
    path = str(tmp_path / "root.key")
    outcomes: list[object] = []

    def start() -> None:
        try:
            outcomes.append(make_root_key(path))
        except ConflictError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [made for made in outcomes if isinstance(made, bytes)] == [load_root_key(path, {})]
    assert len(outcomes) == 8
    assert os.listdir(tmp_path) == ["root.key"]


def test_the_environment_comes_before_the_file(tmp_path: Path) -> None:
    """FUNGISTOR_ROOT_KEY in base64 is the root key; an empty one counts as unset."""
    path = str(tmp_path / "root.key")
    encoded = base64.b64encode(ROOT_KEY).decode()
    assert load_root_key(path, {ROOT_KEY_VARIABLE: encoded + "\n"}) == ROOT_KEY
    made = make_root_key(path)
    assert load_root_key(path, {ROOT_KEY_VARIABLE: ""}) == made
    assert load_root_key(path, {ROOT_KEY_VARIABLE: encoded}) == ROOT_KEY


@pytest.mark.parametrize(
    "given_text", ["!", "AAAA", base64.b64encode(bytes(31)).decode(), base64.b64encode(ROOT_KEY).decode()[:-1]]
)
def test_a_garbled_environment_names_the_variable_and_no_key(tmp_path: Path, given_text: str) -> None:
    """A short or garbled FUNGISTOR_ROOT_KEY is an InvalidError that names it and does not print it."""
    with pytest.raises(InvalidError, match=ROOT_KEY_VARIABLE) as caught:
        load_root_key(str(tmp_path / "root.key"), {ROOT_KEY_VARIABLE: given_text})
    assert given_text not in caught.value.message or len(given_text) < 5


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644, 0o601, 0o777])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """Any right for group or others is a DeniedError with the mode and the remedy."""
    root, node = tmp_path / "root.key", tmp_path / "node.key"
    make_root_key(str(root))
    save_node_keys(str(node), NODE_KEYS)
    root.chmod(mode)
    node.chmod(mode)
    with pytest.raises(DeniedError, match=f"has mode {mode:04o}") as caught:
        load_root_key(str(root), {})
    assert f"chmod 600 {root}" in caught.value.hint
    with pytest.raises(DeniedError, match=f"has mode {mode:04o}"):
        load_node_keys(str(node))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a link, a folder and a pipe each give an error of our families, at once."""
    path = str(tmp_path / "node.key")
    with pytest.raises(NotFoundError, match="there is no key file"):
        load_node_keys(path)
    save_node_keys(path, NODE_KEYS)
    link, folder, pipe = (str(tmp_path / name) for name in ("link", "folder", "pipe"))
    os.symlink(path, link)
    os.mkdir(folder, 0o700)
    os.mkfifo(pipe, 0o600)
    with pytest.raises(FailedError):
        load_node_keys(link)
    for other in (folder, pipe):
        with pytest.raises(DeniedError, match="not a regular file"):
            load_node_keys(other)
    with pytest.raises(FungiStorError):
        save_node_keys(str(tmp_path / "absent" / "node.key"), NODE_KEYS)


def test_node_keys_come_back_and_can_be_replaced(tmp_path: Path) -> None:
    """Saving replaces the file whole, at mode 0600, and leaves nothing beside it."""
    path = tmp_path / "node.key"
    save_node_keys(str(path), NODE_KEYS)
    path.chmod(0o644)
    save_node_keys(str(path), NODE_KEYS)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert load_node_keys(str(path)) == NODE_KEYS
    assert os.listdir(tmp_path) == ["node.key"]


def test_a_newer_node_file_is_named() -> None:
    """Another version is refused with both versions."""
    fields = json.loads(encode_node_keys(NODE_KEYS)) | {"version": 1}
    with pytest.raises(InvalidError, match="of version 1, this program reads version 0"):
        decode_node_keys(json.dumps(fields).encode(), "node.key")


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_changed_key_file_is_found(data: st.DataObject) -> None:
    """Any printable change of a key file gives the same keys or an InvalidError without a secret in it."""
    for encoded, decode, right in (
        (encode_root_key(ROOT_KEY), decode_root_key, ROOT_KEY),
        (encode_node_keys(NODE_KEYS), decode_node_keys, NODE_KEYS),
    ):
        changed = bytearray(encoded)
        start = data.draw(st.integers(0, len(encoded)))
        changed[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        try:
            assert decode(bytes(changed), "k") == right
        except InvalidError as error:
            assert secrets_of(error.message + error.hint) == []


@settings(deadline=None, max_examples=200)
@given(data=st.one_of(st.binary(max_size=200), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["kind", "version", "root", "tenant_keys", "check"]), inner, max_size=5),
    ),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_bytes_crash_a_decoder(data: bytes) -> None:
    """Arbitrary bytes and arbitrary JSON are an InvalidError, in both decoders."""
    for decode in (decode_root_key, decode_node_keys):
        with pytest.raises(InvalidError):
            decode(data, "k")


@settings(deadline=None, max_examples=150)
@given(fields=st.dictionaries(
    st.sampled_from(["root", "network_key", "signing_key", "tenant_keys"]),
    st.one_of(
        st.none(), st.integers(), st.text(max_size=20), st.lists(st.none(), max_size=1),
        st.dictionaries(st.one_of(st.text(max_size=12), st.just("0")), st.text(max_size=12), max_size=2, min_size=1),
    ),
    min_size=1,
))  # fmt: skip
def test_a_well_signed_file_of_nonsense_is_refused(fields: dict[str, object]) -> None:
    """Right kind, version and check do not make up for fields that are no keys."""
    from fungistor.keys.files import _check

    nonsense = {**json.loads(encode_node_keys(NODE_KEYS)), **fields}
    del nonsense["check"]
    with pytest.raises(InvalidError):
        decode_node_keys(json.dumps(nonsense | {"check": _check(nonsense)}).encode(), "k")


def test_an_endless_file_is_not_read_whole(tmp_path: Path) -> None:
    """A file of 2 MiB is refused by its bound."""
    path = tmp_path / "root.key"
    path.write_bytes(b"x" * (2 << 20))
    path.chmod(0o600)
    with pytest.raises(InvalidError, match="longer than 1048576"):
        load_root_key(str(path), {})
