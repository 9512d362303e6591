"""What `config.toml` says of names: who is asked for DNSLinks, and where other nodes reach the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from fungistor.errors import InvalidError
from fungistor.keys.ring import NodeKeys
from fungistor.names.errors import NameNotFoundError
from fungistor.names.key import name_text
from fungistor.node.config import load_config, save_config
from fungistor.node.home import Home
from fungistor.node.identity import gateway_peer_id
from fungistor.node.names import open_names

DEFAULTS: tuple[dict[str, str], tuple[str, ...]] = ({".": "system"}, ())


def _home(tmp_path: Path, text: str) -> Home:
    (tmp_path / "config.toml").write_text(text)
    return Home(str(tmp_path))


def test_zones_and_addresses(tmp_path: Path) -> None:
    """Both are read, and written back as they were."""
    text = 'announce = ["https://gw.example.com"]\n[dns]\n"." = "off"\n"eth." = "https://resolver.example/dns-query"\n'
    home = _home(tmp_path, text)
    config = load_config(home)
    assert config.announce == ("https://gw.example.com",)
    assert config.dns == {".": "off", "eth.": "https://resolver.example/dns-query"}
    save_config(home, config)
    assert load_config(home) == config
    assert (
        load_config(Home(str(tmp_path / "none"))).dns,
        load_config(Home(str(tmp_path / "none"))).announce,
    ) == DEFAULTS


@pytest.mark.parametrize(
    "line",
    [
        'announce = "https://gw.example.com"',
        'announce = ["gw.example.com"]',
        'announce = ["https://gw.example.com/path"]',
        "announce = [1]",
        'dns = "off"',
        'dns = { "." = "ftp://x" }',
        'dns = { "." = 1 }',
    ],
)
def test_what_is_refused(tmp_path: Path, line: str) -> None:
    """A mistake is refused with the file's name before anything is started."""
    with pytest.raises(InvalidError):
        load_config(_home(tmp_path, line + "\n"))


def test_names_without_dns(tmp_path: Path) -> None:
    """With DNS off only the fixed map is known, and nothing waits."""
    names = open_names(_home(tmp_path, '[dns]\n"." = "off"\n'), {"IPFS_NS_MAP": "a.org:/ipfs/bafkqaaa"})
    assert names.has_dnslink("a.org")
    assert not names.has_dnslink("b.org")
    with pytest.raises(NameNotFoundError):
        names.resolve("b.org")
    with pytest.raises(InvalidError):
        open_names(Home(str(tmp_path)), {"IPFS_NS_MAP": "nonsense"})


def test_the_peer_id_is_the_nodes_own() -> None:
    """It stays the same for a node's keys, differs between nodes, and is not the key that signs commands."""
    one, other = (NodeKeys(bytes(32), {}, bytes([seed]) * 32, "0" * 16) for seed in (1, 2))
    assert name_text(gateway_peer_id(one)) == "k51qzi5uqu5dmian0cdv0qqmftyj8bcs20y1fl6rnyyqo2igtew2yaktzx7q55"
    assert gateway_peer_id(one) != gateway_peer_id(other)
    assert one.issuer not in gateway_peer_id(one).multihash
