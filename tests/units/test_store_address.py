"""Where a PostgreSQL store is, as people write it."""

from pathlib import Path

import pytest

from transom.hub.config import HubConfig
from transom.hub.store_address import postgres_address
from transom.model.errors import InvalidError
from transom.runtime.config import load

TRUST = Path("ca.pem")


@pytest.mark.parametrize(
    ("url", "hosts", "user", "database", "shown"),
    [
        ("postgresql://hub@localhost/transom", [("localhost", 5432)], "hub", "transom", None),
        ("postgresql://hub@[::1]:6000/t", [("::1", 6000)], "hub", "t", None),
        ("postgresql://hub@a,b:6000/t", [("a", 5432), ("b", 6000)], "hub", "t", "hub@a:5432,b:6000/t"),
        ("postgresql://a%40b@127.0.0.1/x%20y", [("127.0.0.1", 5432)], "a@b", "x y", None),
    ],
)
def test_an_address_is_read(url: str, hosts: list[object], user: str, database: str, shown: str) -> None:
    address = postgres_address(url, TRUST)
    assert (list(address.hosts), address.user, address.database) == (hosts, user, database)
    assert shown is None or str(address) == f"postgresql://{shown}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hub.db", "expected postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql://localhost/hub", "expected postgresql://USER@"),
        ("postgresql://hub@localhost", "expected postgresql://USER@"),
        ("postgresql://hub@/hub", "expected postgresql://USER@"),
        ("postgresql://hub:hunter2@localhost/hub", "must not hold a password; write it to a file"),
        ("postgresql://hub:hunter2/hub", "expected postgresql://USER@"),
        ("postgresql://hub@localhost/hub?sslmode=disable", "takes no parameters"),
        ("postgresql://hub@localhost:0/hub", "'localhost:0' is not HOST:PORT"),
        ("postgresql://hub@localhost:x/hub", "'localhost:x' is not HOST:PORT"),
        ("postgresql://hub@localhost,/hub", "'' is not HOST:PORT"),
        ("postgresql://hub@db.example/hub", "db.example is not this machine"),
        ("postgresql://hub@localhost,10.0.0.1/hub", "10.0.0.1 is not this machine"),
    ],
)
def test_a_wrong_address_is_told_without_its_password(url: str, words: str) -> None:
    with pytest.raises(InvalidError) as caught:
        postgres_address(url)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_server_elsewhere_is_named_with_whom_to_trust(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text('store = "postgresql://hub@db.example/hub"\nport = 99999\n')
    with pytest.raises(InvalidError, match="store_trust") as caught:
        load(file, HubConfig)
    assert "port" in str(caught.value)
    file.write_text('store = "postgresql://hub@db.example/hub"\nstore_trust = "ca.pem"\n')
    config = load(file, HubConfig)
    assert config.store_trust == tmp_path / "ca.pem"
