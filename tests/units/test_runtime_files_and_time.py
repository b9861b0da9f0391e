"""Configuration, secret files, telemetry, clocks, randomness."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.model.errors import InvalidError
from transom.runtime.clock import ManualClock, SystemClock, timestamp
from transom.runtime.config import Config, load
from transom.runtime.randomness import Randomness, new_secret
from transom.runtime.secret_files import ensure_secret, hash_secret, matches, read_secret, write_private
from transom.runtime.telemetry import blank_secrets


class Link(Config):
    url: str
    port: int


class Part(Config):
    name: str
    links: tuple[Link, ...] = ()
    folder: Path = Path("data")


# --- configuration -------------------------------------------------------------------------------------


def test_a_configuration_is_read_and_frozen(tmp_path: Path) -> None:
    file = tmp_path / "part.toml"
    file.write_text('name = "hub"\n[[links]]\nurl = "http://x"\nport = 1\n')
    held = load(file, Part)
    assert held == Part(name="hub", links=(Link(url="http://x", port=1),), folder=tmp_path / "data")
    with pytest.raises(ValueError, match="frozen"):
        held.name = "other"  # type: ignore[misc]


def test_every_mistake_of_a_configuration_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "part.toml"
    file.write_text(
        'nmae = "hub"\n[[links]]\nurl = "http://x"\nport = 1\n[[links]]\nport = "many"\nextra = 1\n'
    )
    with pytest.raises(InvalidError) as caught:
        load(file, Part)
    assert {problem.path for problem in caught.value.problems} == {
        "name",
        "nmae",
        "links[1].url",
        "links[1].port",
        "links[1].extra",
    }
    assert str(file) in str(caught.value)
    assert "nmae: unknown field" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"name = ", b"\xff\xfe", "folder"])
def test_a_file_that_cannot_be_read_is_one_clear_mistake(content: bytes | str | None, tmp_path: Path) -> None:
    file = tmp_path / "part.toml"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(InvalidError, match=r"part\.toml") as caught:
        load(file, Part)
    assert len(caught.value.problems) == 1


def test_relative_paths_begin_beside_the_file(tmp_path: Path) -> None:
    class Paths(Config):
        data: Path
        key: Path | None = None
        other: Path | None = None

    file = tmp_path / "part.toml"
    file.write_text('data = "data"\nkey = "/elsewhere"\n')
    assert load(file, Paths) == Paths(data=tmp_path / "data", key=Path("/elsewhere"))


# --- secret files --------------------------------------------------------------------------------------


def test_a_secret_is_made_once_in_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        file = tmp_path / "deep" / "admin.key"
        secret = ensure_secret(file)
    finally:
        os.umask(old)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["admin.key"]
    assert ensure_secret(file) == read_secret(file) == secret
    assert len(secret) == 43


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644, 0o601])
def test_a_secret_that_others_can_touch_is_refused(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    ensure_secret(file)
    file.chmod(mode)
    with pytest.raises(InvalidError, match="chmod 600"):
        read_secret(file)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xff"])
def test_a_broken_secret_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    write_private(file, "x")
    file.write_bytes(content)
    with pytest.raises(InvalidError, match=r"admin\.key"):
        read_secret(file)
    with pytest.raises(InvalidError, match=r"admin\.key"):
        ensure_secret(file)
    with pytest.raises(InvalidError, match="cannot be read"):
        read_secret(tmp_path / "nothing")


def test_a_private_file_is_replaced_whole_also_after_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "x.key"
    (tmp_path / "x.key.new").write_text("half of")
    write_private(file, "first")
    write_private(file, "second")
    assert file.read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["x.key"]


@given(st.text(), st.text())
def test_a_key_matches_its_own_hash_alone(one: str, two: str) -> None:
    assert matches(one, hash_secret(one))
    assert matches(one, hash_secret(two)) == (one == two)
    assert one not in hash_secret(one) or len(one) < 4


# --- telemetry -----------------------------------------------------------------------------------------


def test_fields_named_like_a_secret_are_blanked() -> None:
    event = {
        "event": "asked",
        "Authorization": "Bearer x",
        "admin_token": "x",
        "link_key": "x",
        "key": "Region//eu",
    }
    assert blank_secrets(None, "info", event) == {
        "event": "asked",
        "Authorization": "[secret]",
        "admin_token": "[secret]",
        "link_key": "[secret]",
        "key": "Region//eu",
    }


LOGGING = """
from transom.runtime.telemetry import configure_logging, get_logger
configure_logging("region/eu", "warning")
log = get_logger("transom.links.mirror")
log.info("too quiet")
log.warning("link lost", password="hunter2", lag=3)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("broken", secret_key="hunter2")
"""


def test_logs_are_json_lines_on_standard_error_without_secrets() -> None:
    done = subprocess.run([sys.executable, "-c", LOGGING], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "hunter2" not in done.stderr
    lost, broken = (json.loads(line) for line in done.stderr.splitlines())
    assert (lost["event"], lost["part"], lost["lag"], lost["level"]) == (
        "link lost",
        "region/eu",
        3,
        "warning",
    )
    assert "[secret]" in lost.values()
    assert "links.mirror" in lost.values()
    assert "ZeroDivisionError" in broken["exception"]


# --- clocks and randomness -----------------------------------------------------------------------------


async def spin() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_manual_clock_wakes_exactly_those_who_are_due() -> None:
    clock = ManualClock(wall=100.0)
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (5, 1, 3):
            group.create_task(sleeper(seconds))
        cancelled = group.create_task(sleeper(2))
        await spin()
        assert clock.sleeping == 4
        cancelled.cancel()
        await spin()
        assert clock.sleeping == 3
        clock.advance(3)
        assert clock.sleeping == 1
        await spin()
        assert sorted(woken) == [1, 3]
        clock.advance(2)
    assert sorted(woken) == [1, 3, 5]
    assert (clock.wall(), clock.monotonic(), clock._sleepers) == (105.0, 5.0, [])
    await clock.sleep(0)


def test_a_timestamp_is_rfc_3339_in_utc() -> None:
    assert timestamp(ManualClock(0.0)) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(ManualClock(1_700_000_000.25)) == "2023-11-14T22:13:20.250000Z"


async def test_the_systems_clock_goes_forward() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    await clock.sleep(0)
    assert clock.monotonic() >= first
    assert clock.wall() > 1_700_000_000


@given(st.integers(), st.floats(0.001, 1e6))
def test_randomness_is_seeded_and_within_bounds(seed: int, seconds: float) -> None:
    one, two = Randomness(seed), Randomness(seed)
    assert one.uid() == two.uid()
    assert seconds * 0.8999 <= one.jitter(seconds) <= seconds * 1.1001
    assert 0 <= one.below(seconds) <= seconds


def test_secrets_are_never_seeded() -> None:
    assert new_secret() != new_secret()
    assert Randomness().uid() != Randomness().uid()
