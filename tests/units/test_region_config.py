"""A region's configuration: every mistake at once, and paths that begin beside the file."""

from pathlib import Path

import pytest

from transom.model.errors import InvalidError
from transom.region.config import RegionConfig, ZoneConfig
from transom.region.works import workloads
from transom.runtime.clock import SystemClock
from transom.runtime.config import load
from transom.runtime.serving_tls import operators_tls

HASH = "a" * 64


def write(folder: Path, text: str) -> Path:
    path = folder / "region.toml"
    path.write_text(text)
    return path


def test_what_is_not_said_has_a_default_and_paths_begin_beside_the_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, f'name = "eu"\ndata = "data"\nlink_key_hash = "{HASH}"\n'), RegionConfig)
    assert config.zones == [ZoneConfig(name="a", driver="process")]
    assert (config.environment, config.host, config.heartbeat_seconds) == ("production", "127.0.0.1", 2.0)
    assert config.data == tmp_path / "data"
    assert workloads(config) == tmp_path / "data" / "workloads"


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    text = """
    name = "Not A Label"
    link_key_hash = "the key itself"
    port = 99999
    colour = "blue"
    zones = [{name = "a", driver = "magic"}]
    """
    with pytest.raises(InvalidError) as caught:
        load(write(tmp_path, text), RegionConfig)
    paths = {problem.path for problem in caught.value.problems}
    assert paths == {"name", "link_key_hash", "port", "colour", "zones[0].driver"}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('zones = [{name = "a"}, {name = "a"}]', "two zones have the same name"),
        ('tls_cert = "cert.pem"', "belong together"),
        ("zones = []", "zones"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(InvalidError, match=what):
        load(write(tmp_path, f'name = "eu"\nlink_key_hash = "{HASH}"\n{text}\n'), RegionConfig)


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "cert.pem"
    config = RegionConfig(name="eu", link_key_hash=HASH, tls_cert=missing, tls_key=missing)
    with pytest.raises(InvalidError, match="tls_cert"):
        operators_tls(config.name, config.tls_cert, config.tls_key, SystemClock())
