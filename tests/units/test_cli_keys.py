"""`transom keys`: the real command against a served API."""

import asyncio
import contextlib
import re

import pytest
from click.testing import CliRunner

from access_parts import made_key
from api_parts import KEY, served
from cli_here import transom
from cli_parts import TRANSOM, environment
from hub_parts import put
from tls_parts import TRUST, say_where
from transom.cli.keys import keys_command
from transom.model.api_keys import hash_of, is_well_formed
from transom.model.errors import NotFoundError
from transom.model.names import Key
from transom.model.resources import Metadata, Resource
from transom.model.times import read_time

ANY_KEY = re.compile(r"tsm_\w+")


@pytest.fixture
async def hub(tmp_path):
    """A served API, and a folder from which the command line finds it."""
    async with served(tmp_path / "hub") as api:
        say_where(tmp_path, api.address, KEY)
        api.folder = tmp_path
        yield api


async def held(hub, name="ci"):
    with contextlib.suppress(NotFoundError):
        return await hub.store.get(Key("ApiKey", "acme", name))


async def declare(hub, kind, name, namespace="", **spec):
    await hub.store.write(put(Resource(kind, Metadata(name, namespace), spec=spec)))


def everything_in(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# --- create --------------------------------------------------------------------------------------------


async def test_the_key_is_shown_once_and_only_its_hash_is_sent(hub):
    made = await transom("keys", "create", "ci", "--why", "for the build", cwd=hub.folder)
    assert made.code == 0, made.err
    key = made.out.removesuffix("\n")
    assert is_well_formed(key.encode())
    assert "apikey/ci of tenant acme was made; its key is shown this once" in made.err
    resource = await held(hub)
    assert resource.spec == {"hash": hash_of(key.encode()).hex(), "scopes": ["*"], "revoked": False}
    (event,) = await hub.store.history_of(resource.key, 5)
    assert event.why == "for the build"
    listed, described = await asyncio.gather(
        transom("keys", "list", "-o", "json", cwd=hub.folder),
        transom("describe", "key", "ci", "-o", "json", cwd=hub.folder),
    )
    shown = made.err + listed.out + listed.err + described.out + described.err
    assert not ANY_KEY.search(shown)
    stored = everything_in(hub.folder)
    assert hash_of(key.encode()).hex().encode() in stored
    assert key.encode() not in stored


async def test_a_second_key_of_the_same_name_is_refused_and_not_shown(hub):
    await declare(hub, "ApiKey", "ci", "acme", hash="ab" * 32)
    refused = await transom("keys", "create", "ci", cwd=hub.folder)
    assert (refused.code, refused.out) == (1, "")
    assert "already exists" in refused.err
    assert not ANY_KEY.search(refused.err)
    assert (await held(hub)).spec["hash"] == "ab" * 32


async def test_what_it_may_do_and_until_when(hub):
    options = ("--scope", "app:shop", "--scope", "app:till:read", "--expires", "30d", "--rate", "2.5")
    made, exact = await asyncio.gather(
        transom("keys", "create", "ci", *options, "--virtual-cluster", "vc", "-o", "json", cwd=hub.folder),
        transom("keys", "create", "exact", "--expires", "2999-01-31T12:00:00+01:00", cwd=hub.folder),
    )
    resource = await held(hub)
    assert made.json == {
        "name": "ci",
        "tenant": "acme",
        "key": made.json["key"],
        "scopes": ["app:shop", "app:till:read"],
        "expiresAt": resource.spec["expiresAt"],
        "virtualCluster": "vc",
        "requestsPerSecond": 2.5,
    }
    assert resource.spec["hash"] == hash_of(made.json["key"].encode()).hex()
    begun = read_time(resource.metadata.creation_timestamp)
    assert read_time(resource.spec["expiresAt"]) - begun == pytest.approx(30 * 86_400, abs=60)
    assert exact.code == 0
    assert (await held(hub, "exact")).spec["expiresAt"] == "2999-01-31T12:00:00+01:00"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--expires", "2001-01-01T00:00:00Z"], "is in the past"),
        (["--expires", "2999-01-31"], "RFC 3339"),
        (["--expires", "soon"], "RFC 3339"),
        (["--expires", "5x"], "RFC 3339"),
        (["--expires", "3d!h"], "expected a time"),
        (["--expires", "99999999999d"], "too far away"),
        (["--rate", "0"], "--rate"),
    ],
)
def test_wrong_options_make_no_key(options, said):
    refused = CliRunner().invoke(keys_command, ["create", "ci", *options])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert said in refused.stderr


async def test_a_key_that_is_refused_is_not_shown(hub):
    wrong = {
        "spec.scopes[0]": ["--scope", "shop"],
        "spec.virtualCluster": ["--virtual-cluster", "A B"],
        "Tenant 'globex' does not exist": ["-n", "globex"],
    }
    ran = await asyncio.gather(
        *(transom("keys", "create", "ci", *options, cwd=hub.folder) for options in wrong.values())
    )
    for said, refused in zip(wrong, ran, strict=True):
        assert (refused.code, refused.out) == (1, "")
        assert said in refused.err
        assert not ANY_KEY.search(refused.err)
    assert await held(hub) is None


async def test_a_key_that_cannot_be_written_out_is_said_to_be_lost(hub):
    with open("/dev/full", "wb") as full:  # noqa: ASYNC230, PTH123
        process = await asyncio.create_subprocess_exec(
            *(TRANSOM, "keys", "create", "ci"),
            cwd=hub.folder,
            env=environment(),
            stdout=full,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
    assert process.returncode == 1
    assert b"could not be shown (No space left on device): revoke it" in err
    assert not ANY_KEY.search(err.decode())
    assert b"Traceback" not in err


# --- when the answer is lost ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def road_to(hub, *, heard: bool, first=None):
    """A road whose first traveller gets no answer; whether the hub has `heard` it is up to the test.

    `first` runs when that traveller has been lost, before the next one comes.
    """
    host, port = hub.address.removeprefix("https://").split(":")
    lost: list[bool] = []

    async def carry(reader, writer):
        answered = True
        with contextlib.suppress(ConnectionError):
            if not lost:
                lost.append(True)
                answered = False
            if answered or heard:
                from_hub, to_hub = await asyncio.open_connection(host, int(port), ssl=TRUST.client)
                to_hub.write(await reader.read(65_536))
                answer = await from_hub.read(65_536)
                to_hub.close()
                if answered:
                    writer.write(answer)
                    await writer.drain()
            else:
                await reader.read(65_536)
            if not answered and first is not None:
                await first()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=TRUST.server)
    async with server:
        say_where(hub.folder, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", KEY)
        yield
        assert lost


async def test_a_key_whose_creation_was_not_answered_is_shown_when_the_hub_holds_it(hub):
    async with road_to(hub, heard=True):
        made = await transom("keys", "create", "ci", "-n", "acme", cwd=hub.folder)
    assert made.code == 0, made.err
    assert (await held(hub)).spec["hash"] == hash_of(made.out.strip().encode()).hex()


async def test_a_key_that_may_be_worth_nothing_is_not_shown(hub):
    async with road_to(hub, heard=False):
        unknown = await transom("keys", "create", "ci", "-n", "acme", cwd=hub.folder)
    assert (unknown.code, unknown.out) == (3, "")
    assert "whether apikey/ci was made is unknown" in unknown.err
    assert not ANY_KEY.search(unknown.err)


async def test_a_key_of_the_same_name_that_is_somebody_elses_is_not_taken_for_ours(hub):
    async def somebody_else():
        await declare(hub, "ApiKey", "ci", "acme", hash="ab" * 32)

    async with road_to(hub, heard=False, first=somebody_else):
        unknown = await transom("keys", "create", "ci", "-n", "acme", cwd=hub.folder)
    assert (unknown.code, unknown.out) == (3, "")
    assert "is unknown" in unknown.err


async def test_with_no_hub_at_all_no_key_is_shown(hub):
    say_where(hub.folder, "https://127.0.0.1:1", KEY)
    unknown = await transom("keys", "create", "ci", "-n", "acme", cwd=hub.folder)
    assert (unknown.code, unknown.out) == (3, "")


# --- list and revoke -----------------------------------------------------------------------------------


async def test_keys_are_listed_with_what_they_are_worth(hub):
    for place, (name, spec) in enumerate(
        {
            "good": {"scopes": ["app:shop", "app:till:read"]},
            "ends": {"expiresAt": "2999-01-31T12:00:00Z"},
            "over": {"expiresAt": "2001-01-31T12:00:00Z"},
            "gone": {"revoked": True},
        }.items()
    ):
        await declare(hub, "ApiKey", name, "acme", hash=f"{place}a" * 32, **spec)
    await declare(hub, "Tenant", "globex", suspended=True)
    await declare(hub, "ApiKey", "theirs", "globex", hash="ab" * 32)
    table, acme, none = await asyncio.gather(
        transom("keys", "list", cwd=hub.folder),
        transom("keys", "list", "-n", "acme", "-o", "json", cwd=hub.folder),
        transom("keys", "list", "-n", "nobody", cwd=hub.folder),
    )
    head, *rows = (line.split() for line in table.out.splitlines())
    assert head == ["NAME", "TENANT", "SCOPES", "EXPIRES", "STATE", "AGE"]
    states = {row[0]: row[-2] for row in rows}
    assert states == {
        "ends": "good",
        "gone": "revoked",
        "good": "good",
        "over": "expired",
        "theirs": "suspended",
    }
    expires = {row[0]: " ".join(row[3:-2]) for row in rows}
    assert expires["good"] == "never"
    assert re.fullmatch(r"in \d+d", expires["ends"])
    assert re.fullmatch(r"\d+d ago", expires["over"])
    assert next(row for row in rows if row[0] == "good")[1:3] == ["acme", "app:shop,app:till:read"]
    assert [(key["name"], key["state"]) for key in acme.json] == [
        ("ends", "good"),
        ("gone", "revoked"),
        ("good", "good"),
        ("over", "expired"),
    ]
    assert "0a0a" not in table.out + acme.out, "a hash is of no use to people"
    assert (none.code, none.out, "no keys found" in none.err) == (0, "", True)


async def test_who_may_read_one_tenant_names_it(hub):
    await declare(hub, "ApiKey", "ci", "acme", hash="ab" * 32)
    (hub.folder / "ada.key").write_text(await made_key(hub.store, "ada", acme="owner"))
    (hub.folder / "ada.key").chmod(0o600)
    as_ada = ("--key-file", "ada.key")
    for verb in (("keys", "list"), ("keys", "revoke", "ci")):
        unsaid = await transom(*verb, *as_ada, cwd=hub.folder)
        assert (unsaid.code, unsaid.out) == (2, "")
        assert "-n TENANT" in unsaid.err
    listed = await transom("keys", "list", "-n", "acme", "-o", "json", *as_ada, cwd=hub.folder)
    assert [(key["name"], key["state"]) for key in listed.json] == [("ci", "good")]


async def test_a_revocation_is_for_good(hub):
    await declare(hub, "ApiKey", "ci", "acme", hash="ab" * 32)
    done = await transom("keys", "revoke", "ci", "--why", "it leaked", cwd=hub.folder)
    assert (done.code, done.out) == (0, "apikey/ci revoked\n")
    revoked = await held(hub)
    assert revoked.spec["revoked"] is True
    assert (await hub.store.history_of(revoked.key, 5))[0].why == "it leaked"
    again = await transom("keys", "revoke", "ci", "-o", "json", cwd=hub.folder)
    assert again.json == {
        "name": "ci",
        "tenant": "acme",
        "result": "was revoked already",
        "resourceVersion": revoked.metadata.resource_version,
    }
    manifest = f'{{"apiVersion": "transom.dev/v1", "kind": "ApiKey", "metadata": {{"name": "ci"}}, \
"spec": {{"hash": "{"ab" * 32}"}}}}'
    applied = await transom("apply", "-f", "-", stdin=manifest, cwd=hub.folder)
    assert applied.code == 1
    assert "spec.revoked  Invalid value: a revoked key stays revoked" in applied.err
    assert await held(hub) == revoked
    missing = await transom("keys", "revoke", "nothing", cwd=hub.folder)
    assert (missing.code, "not found" in missing.err) == (1, True)


async def test_a_tenant_with_keys_is_not_deleted(hub):
    await declare(hub, "ApiKey", "ci", "acme", hash="ab" * 32)
    refused = await transom("delete", "tenant", "acme", cwd=hub.folder)
    assert (refused.code, "still used by ApiKey/acme/ci" in refused.err) == (1, True)
