from __future__ import annotations

import base64
from pathlib import Path

import pytest

from fungistor.errors import DeniedError, InvalidError
from fungistor.node.first_keys import ensure_keys
from fungistor.node.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(str(tmp_path / "home"))
    home.prepare()
    return home


def test_the_first_start_draws_keys_and_says_once_to_back_them_up(home: Home) -> None:
    """Keys are made once; the second start finds the same ones and says nothing."""
    said: list[str] = []
    first = ensure_keys(home, said.append, {})
    assert len(said) == 1
    assert "back up" in said[0]
    assert ensure_keys(home, said.append, {}) == first
    assert len(said) == 1
    for name in ("root.key", "node.key"):
        assert (Path(home.keys) / name).stat().st_mode & 0o777 == 0o600


def test_the_root_key_may_come_from_the_environment(home: Home) -> None:
    """With FUNGISTOR_ROOT_KEY no root key is ever written, and another one is refused later."""
    environment = {"FUNGISTOR_ROOT_KEY": base64.b64encode(b"k" * 32).decode()}
    said: list[str] = []
    first = ensure_keys(home, said.append, environment)
    assert not (Path(home.keys) / "root.key").exists()
    assert said == []
    assert ensure_keys(home, said.append, {}) == first
    with pytest.raises(DeniedError):
        ensure_keys(home, said.append, {"FUNGISTOR_ROOT_KEY": base64.b64encode(b"x" * 32).decode()})
    with pytest.raises(InvalidError):
        ensure_keys(home, said.append, {"FUNGISTOR_ROOT_KEY": "short"})


def test_a_node_runs_without_its_root_key(home: Home) -> None:
    """After the first start the root key may be taken away to a safe place."""
    first = ensure_keys(home, lambda text: None, {})
    (Path(home.keys) / "root.key").unlink()
    assert ensure_keys(home, lambda text: None, {}) == first


def test_a_lost_node_key_is_issued_again_from_the_root_key(home: Home) -> None:
    """The root key opens the same network again; only the signing key is a new one."""
    first = ensure_keys(home, lambda text: None, {})
    (Path(home.keys) / "node.key").unlink()
    again = ensure_keys(home, lambda text: None, {})
    assert (again.network_key, again.tenant_keys) == (first.network_key, first.tenant_keys)


def test_keys_are_never_drawn_anew_for_old_data(home: Home) -> None:
    """A home with a catalog and no keys is refused: new keys would hide that the old ones are lost."""
    Path(home.catalog_log).write_bytes(b"")
    with pytest.raises(DeniedError, match="gone"):
        ensure_keys(home, lambda text: None, {})
    assert not (Path(home.keys) / "root.key").exists()
