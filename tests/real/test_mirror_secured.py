"""A mirror between clusters with passwords and TLS: exact over every sort of listener, whatever dies; what is
wrong with a password, a certificate or a port is told in one error, without a secret.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

import mirror_loads as loads
from cli_here import Run, refused, runner
from cli_parts import Ran, transom
from engines.certificates import Authority
from engines.kafka import Brokers
from engines_fixtures import USERS
from mirror_deaths import die_and_go_on
from mirror_secure import end_of
from mirror_sides import Side, side_of
from mirror_world import World
from transom.runtime.secret_files import write_private

DEATHS = ["carry.kept:2", "carry.produced:3"]


@pytest.fixture
async def sides(secure_brokers: Brokers, far_secure_brokers: Brokers) -> AsyncIterator[tuple[Side, Side]]:
    async with side_of(secure_brokers) as source, side_of(far_secure_brokers) as target:
        yield source, target


async def test_copies_are_exact_over_listeners_of_every_sort_whatever_dies(
    fresh_starts: None, sides: tuple[Side, Side], tmp_path: Path
) -> None:
    source, target = (side.brokers for side in sides)
    password = World(
        source,
        target,
        tmp_path,
        include=["sealed", "large"],
        name="password",
        ends=(
            end_of(source, tmp_path, "SASL_SSL", user="hub"),
            end_of(target, tmp_path, "SASL_PLAINTEXT", user="hub", mechanism="PLAIN"),
        ),
    )
    certificate = World(
        source,
        target,
        tmp_path,
        include=["open", "wide"],
        name="certificate",
        ends=(
            end_of(source, tmp_path, "SSL"),
            end_of(target, tmp_path, "SASL_SSL", user="hub", mechanism="SCRAM-SHA-256"),
        ),
    )
    sorts = ((password, "sealed", "large", DEATHS), (certificate, "open", "wide", DEATHS[::-1]))
    try:
        async with asyncio.TaskGroup() as group:
            for world, topic, large, deaths in sorts:
                group.create_task(survive(world, topic, large, deaths))
        for world in (password, certificate):
            (part,) = world.parts
            assert part.process is not None
            process = psutil.Process(part.process.pid)
            for seen in (*process.cmdline(), *process.environ().values(), part.output()):
                assert USERS["hub"] not in seen
    finally:
        password.kill()
        certificate.kill()


async def survive(world: World, topic: str, large: str, deaths: Sequence[str]) -> None:
    """Mirror a topic whatever dies, and one of large records beside it."""
    load = await asyncio.to_thread(loads.large, world.source.bootstrap, large, random.Random(11))
    await die_and_go_on(world, topic, deaths, 11)
    await world.check(load)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


class Wrong(NamedTuple):
    """The ends of a mirror that cannot work, and how it says so."""

    source: str
    target: str
    code: int
    said: str


def wrong_ends(source: Brokers, target: Brokers, folder: Path) -> dict[str, Wrong]:
    """Everything that may be wrong with how one gets to a cluster."""
    assert source.secure is not None
    tls, plain = source.secure.bootstrap("SASL_SSL"), source.secure.bootstrap("SASL_PLAINTEXT")
    here, there = end_of(source, folder, "SASL_SSL", user="hub"), end_of(target, folder, user="hub")
    key = folder / "hub-0.key"
    (folder / "others").mkdir()
    others = Authority(folder / "others", "Others").trust
    open_key, bad_key = folder / "open.key", folder / "bad.key"
    open_key.write_text("not-it")
    write_private(bad_key, "not-it")
    check = "check the password in its file, and the mechanism"
    return {
        "a wrong password": Wrong(
            here.replace(str(key), str(bad_key)),
            there,
            1,
            f"source of mirror 'test': {tls} refuses user 'hub' with SCRAM-SHA-512; {check} "
            f"(source.key_file is {bad_key})",
        ),
        "a wrong password at the target": Wrong(
            here,
            end_of(target, folder, user="hub", mechanism="PLAIN", password="not-it"),  # noqa: S106
            1,
            f"refuses user 'hub' with PLAIN; {check} (target.key_file is {folder}/hub-",
        ),
        "no key": Wrong(
            here.replace(str(key), str(folder / "no.key")),
            there,
            2,
            f"key file {folder}/no.key, 1 mistake\n  cannot be read",
        ),
        "a key that others can read": Wrong(
            here.replace(str(key), str(open_key)),
            there,
            2,
            f"key file {open_key}, 1 mistake\n  others can read it; run: chmod 600 {open_key}",
        ),
        "an authority that is not the brokers'": Wrong(
            end_of(source, folder, "SASL_SSL", user="hub", trust=others),
            there,
            2,
            f"source of mirror 'test', 1 mistake\n  source.address  TLS with {tls} fails: ",
        ),
        "that authority is named": Wrong(
            end_of(source, folder, "SASL_SSL", user="hub", trust=others),
            there,
            2,
            f"(source.trust is {others})",
        ),
        "no authority": Wrong(
            here,
            end_of(target, folder, "SSL", trust=folder / "no.pem"),
            2,
            "target of the mirror, 1 mistake\n  target.trust  cannot be read as certificates",
        ),
        "a port without TLS": Wrong(
            here.replace(tls, plain),
            there,
            2,
            f"source.address  the listener at {plain} has no TLS; name the port that has",
        ),
        "a port with TLS": Wrong(
            end_of(source, folder, user="hub").replace(plain, tls),
            there,
            2,
            f"source.address  the listener at {tls} wants TLS; write kafka+tls://",
        ),
        "no user": Wrong(
            end_of(source, folder, "SSL").replace(source.secure.bootstrap("SSL"), tls),
            there,
            1,
            f"{tls} lets nobody in without a user; write kafka+tls://USER@{tls}, and name the file with the "
            "password in source.key_file",
        ),
        "a password in the address": Wrong(
            here.replace("hub@", "hub:not-it@"),
            there,
            2,
            "source.address  holds a password; put it into a file, which key_file names",
        ),
    }


async def test_what_keeps_a_mirror_out_is_one_error_that_names_what_to_change(
    sides: tuple[Side, Side], tmp_path: Path, run: Run
) -> None:
    source, target = (side.brokers for side in sides)
    for about, wrong in wrong_ends(source, target, tmp_path).items():
        world = World(source, target, tmp_path / about, ends=(wrong.source, wrong.target))
        config = str(world.config)
        verbs = [["mirror", "--dry-run"]]
        if "target" in about:
            verbs += [["mirror", "status"], ["mirror", "pause", "orders"]]
        for verb in verbs:
            check(await run(*verb, "-c", config), wrong)
        if about in ("a wrong password at the target", "that authority is named"):
            check(await transom("mirror", "-c", config, cwd=tmp_path), wrong)
    assert [name for name in await sides[1].cluster.layouts(None) if name.startswith("transom")] == []


def check(told: Ran, wrong: Wrong) -> None:
    refused(told, wrong.code, wrong.said)
    for secret in (USERS["hub"], "not-it"):
        assert secret not in told.out + told.err
