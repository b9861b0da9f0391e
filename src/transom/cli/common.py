"""What the verbs share: their options, the way to the hub, and how things are named."""

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, NamedTuple, TypeVar

import click

from transom.catalog.tenant.kind import TENANT
from transom.cli.output import harmless
from transom.client.config import ClientConfig, find, read_key, whom_to_trust
from transom.client.hub import ApiError, HubClient
from transom.client.kinds import kinds_of
from transom.model.errors import NotFoundError, UnauthorizedError
from transom.model.kinds import Kind
from transom.runtime.clock import SystemClock, rfc3339

C = TypeVar("C", bound=Callable[..., Any])

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNAUTHORIZED, _FORBIDDEN = 401, 403
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Way(NamedTuple):
    """How the hub was said to be reached; empty where nothing was said."""

    hub: str
    key_file: str
    ca_file: str

    @property
    def said(self) -> bool:
        """Whether anything was."""
        return any(self)

    def find(self) -> ClientConfig:
        """Where the hub is. Raises `InvalidError`."""
        return find(self.hub, self.key_file, self.ca_file)

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[HubClient]:
        """A client of the hub, for a block. Raises `InvalidError`, and `UnauthorizedError` from the block."""
        config = self.find()

        def late() -> None:
            click.echo(f"waiting for the hub at {harmless(config.hub)}; Ctrl-C gives up", err=True)

        async with HubClient(config.hub, read_key(config), whom_to_trust(config), late) as hub:
            try:
                yield hub
            except ApiError as error:
                if error.code != _UNAUTHORIZED:
                    raise
                raise UnauthorizedError(
                    f"the hub at {config.hub} does not take the key in {config.key_file}: it was revoked, "
                    "has expired, or is another hub's; name the file of a good one with --key-file"
                ) from None


def hub_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--hub, --key-file and --ca-file, which a command takes as `way`."""

    @functools.wraps(command)
    def on_its_way(*args: Any, hub: str, key_file: str, ca_file: str, **more: Any) -> Any:
        return command(*args, way=Way(hub, key_file, ca_file), **more)

    options = (
        ("--ca-file", "FILE", "Certificates (PEM) to trust as the hub's authority [TRANSOM_CA_FILE]."),
        ("--key-file", "FILE", "File that holds the key [TRANSOM_KEY_FILE]."),
        ("--hub", "URL", "Address of the hub [TRANSOM_HUB]."),
    )
    for name, metavar, text in options:
        on_its_way = click.option(name, default="", metavar=metavar, help=text)(on_its_way)
    return on_its_way


def tenant_option(command: C) -> C:
    """-n, which a command takes as `tenant`."""
    return click.option(
        "-n", "--tenant", default="", metavar="TENANT", help="The tenant; the only one if there is but one."
    )(command)


def output_option(*formats: str) -> Callable[[C], C]:
    """-o, which a command takes as `output`; the first format is the default."""
    return click.option("-o", "--output", type=click.Choice(formats), default=formats[0], show_default=True)


def why_option(command: C) -> C:
    """--why, for the history."""
    return click.option("--why", default="", metavar="TEXT", help="The reason, for the history.")(command)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a verb to its end."""
    asyncio.run(work)


def seconds_of(option: str, text: str) -> float:
    """The length of time in `text`, as 90s, 1m30s, 500ms or 30d. Raises `click.UsageError`."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise click.UsageError(f"{option} {text!r}: expected a time as 90s, 1m30s or 500ms")
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def time_after(option: str, seconds: float) -> str:
    """The time `seconds` from now, as it stands in a spec. Raises `click.UsageError`."""
    try:
        return rfc3339(SystemClock().wall() + seconds)
    except (ValueError, OverflowError):
        raise click.UsageError(f"{option}: is too far away to be written as a time") from None


async def kind_called(hub: HubClient, name: str) -> Kind:
    """The kind that people call `name`, as `hub` serves it. Raises `click.UsageError`."""
    try:
        return (await kinds_of(hub)).named(name)
    except NotFoundError as error:
        raise click.UsageError(str(error)) from None


def split_reference(reference: str) -> tuple[str, str]:
    """What the kind is called, and the name, in KIND/NAME. Raises `click.UsageError`."""
    called, slash, name = reference.partition("/")
    if not slash or not name:
        raise click.UsageError(f"expected KIND/NAME, as deployment/shop, not {reference!r}")
    return called, name


def named(kind: str, name: str) -> tuple[str, str]:
    """What the kind is called, and the name, in `KIND NAME` or KIND/NAME; no name is empty.

    Raises `click.UsageError`.
    """
    if "/" not in kind:
        return kind, name
    if name:
        raise click.UsageError(f"give {kind} or {kind.partition('/')[0]} {name}, not both")
    return split_reference(kind)


def reference(kind: Kind, name: str) -> str:
    """How output names a resource: deployment/shop."""
    return f"{kind.name.lower()}/{name}"


@contextlib.contextmanager
def of_all_tenants() -> Generator[None]:
    """Around what only those may ask who may read every tenant: says what others can do."""
    try:
        yield
    except ApiError as error:
        if error.code != _FORBIDDEN:
            raise
        raise click.UsageError("you may not read every tenant: say which one, with -n TENANT") from None


async def tenant_for(hub: HubClient, kind: Kind, given: str) -> str:
    """The tenant to look in: `given`, or the only one. Raises `click.UsageError` when it must be said."""
    if not kind.namespaced:
        return ""
    if given:
        return given
    with of_all_tenants():
        tenants = [tenant.metadata.name for tenant in (await hub.list_all(TENANT)).items]
    if len(tenants) == 1:
        return tenants[0]
    if not tenants:
        raise click.UsageError("there is no tenant yet; apply one: kind: Tenant")
    raise click.UsageError(f"say which tenant, with -n: {', '.join(tenants)}")
