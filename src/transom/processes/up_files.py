"""The folder of `transom up`: what is in it, and how it is made, once.

    transom.json                    which layout this is, so that an older release leaves it alone
    client.toml                     where the hub is, which file holds the key, and whom to trust: the command
                                    line looks here
    hub/hub.toml, hub/admin.key     the hub's configuration, its key, and its data
    hub/authority.pem, hub/ca.pem   what certifies the hub's server, and what its clients trust
    hub/link-keys/<region>.key      what the hub shows to a region's log
    hub/signing.key                 what the hub signs contexts with; gateways know its public half
    regions/<region>/region.toml    a region's configuration (of the link key only the hash), and its data
    regions/<region>/gateway.toml   its gateway's; the gateway's data is in gateway/ beside it
    run/<part>/                     each process: its record, and output.log

Files that are there are read, never written again: people may change them.
Next: `processes.parts` runs what stands here.
"""

import ssl
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from transom import __version__
from transom.client.hub import HubClient
from transom.hub.config import HubConfig
from transom.model.errors import UNREADABLE, InvalidError, NewerDataError, Problem
from transom.model.names import LABEL_RULE, is_label
from transom.region.config import RegionConfig
from transom.region.gateway.config import GatewayConfig
from transom.runtime.authority import ensure_authority
from transom.runtime.config import load
from transom.runtime.secret_files import ensure_secret, hash_secret, read_secret, write_private
from transom.runtime.signing import ensure_signing_key
from transom.runtime.tls import client_tls

DEFAULT_PORT = 8480
DEFAULT_REGIONS = ("eu", "us", "ap")

_FORMAT = 1
_HOST = "127.0.0.1"
_PORT_MAX = 65_535


class _Marker(msgspec.Struct, frozen=True):
    format: int
    release: str


class Engines(NamedTuple):
    """Where real engines are: the hub's store, and the log of the hub ("hub") and of each region."""

    store: str
    logs: Mapping[str, str]


@dataclass(frozen=True)
class Setup:
    """What is to run: the hub's configuration, each region's and its gateway's, their paths absolute."""

    folder: Path
    hub: HubConfig
    regions: dict[str, RegionConfig]
    gateways: dict[str, GatewayConfig]

    @property
    def hub_address(self) -> str:
        """Where the hub's API is."""
        return f"https://{self.hub.host}:{self.hub.port}"

    @property
    def key_file(self) -> Path:
        """The file that holds the administrator's key once the hub has started."""
        return self.hub.data / "admin.key"

    def client(self) -> HubClient:
        """A client of the hub with the administrator's key; use it as a context. Raises `InvalidError`."""
        return HubClient(self.hub_address, read_secret(self.key_file), self.hub_tls)

    @property
    def hub_tls(self) -> ssl.SSLContext | None:
        """Whom clients of the hub trust. Raises `InvalidError`."""
        return client_tls("configuration of the hub", "trust", self.hub.ca_file)


@dataclass(frozen=True)
class Ports:
    """Where everything listens: each region's log server and gateway by the region's name."""

    hub: int
    regions: dict[str, int]
    gateways: dict[str, int]

    def __iter__(self) -> Iterator[int]:
        return iter((self.hub, *self.regions.values(), *self.gateways.values()))


def address(config: RegionConfig | GatewayConfig) -> str:
    """Where a region's log or its gateway is."""
    scheme = "https" if config.tls_cert else "http"
    return f"{scheme}://{config.host}:{config.port}"


def hub_file(folder: Path) -> Path:
    """The hub's configuration file."""
    return folder / "hub" / "hub.toml"


def region_file(folder: Path, name: str) -> Path:
    """A region's configuration file."""
    return folder / "regions" / name / "region.toml"


def gateway_file(folder: Path, name: str) -> Path:
    """The configuration file of a region's gateway."""
    return folder / "regions" / name / "gateway.toml"


def region_names(folder: Path) -> list[str]:
    """The regions that have a configuration in `folder`."""
    return sorted(file.parent.name for file in (folder / "regions").glob("*/region.toml"))


def check_format(folder: Path) -> None:
    """Refuse a folder that a newer release made. Changes nothing. Raises `NewerDataError`, `InvalidError`."""
    marker = folder / "transom.json"
    try:
        held = msgspec.json.decode(marker.read_bytes(), type=_Marker)
    except FileNotFoundError:
        return
    except (OSError, *UNREADABLE) as error:
        raise InvalidError(f"marker {marker}", [Problem("", f"cannot be read: {error}")]) from None
    if held.format > _FORMAT:
        raise NewerDataError(
            f"folder {folder} is of layout {held.format}, made by release {held.release}; this is release "
            f"{__version__}, which knows layout {_FORMAT}: use that release or a newer one, or another --dir"
        )


def plan(folder: Path, port: int | None, names: Sequence[str] | None) -> Ports:
    """The ports: those in the files that are there, new ones for the rest.

    Writes nothing. Raises `InvalidError` when what is asked for cannot be.
    """
    held_port = _port_in(hub_file(folder))
    if held_port is not None and port not in (None, held_port):
        wrong = f"{hub_file(folder)} says {held_port}; change it there, or use another --dir"
        raise InvalidError(f"--port {port}", [Problem("", wrong)])
    hub_port = held_port or port or DEFAULT_PORT
    there = region_names(folder)
    chosen = list(names) if names is not None else there or list(DEFAULT_REGIONS)
    wrong_names = [name for name in chosen if not is_label(name)]
    if wrong_names or len(set(chosen)) != len(chosen) or not chosen:
        wrong = f"{wrong_names[0]!r} {LABEL_RULE}" if wrong_names else "names must be there, each once"
        raise InvalidError("--regions", [Problem("", wrong)])
    files = (region_file, gateway_file)
    held = {file(folder, name): _port_in(file(folder, name)) for name in {*chosen, *there} for file in files}
    taken = [hub_port, *filter(None, held.values())]
    ports = Ports(hub_port, {}, {})
    for file, given in zip(files, (ports.regions, ports.gateways), strict=True):
        for name in chosen:
            given[name] = held[file(folder, name)] or max(taken) + 1
            taken.append(given[name])
    if max(ports) > _PORT_MAX:
        raise InvalidError(f"--port {hub_port}", [Problem("", "leaves no port for every region")])
    return ports


def write(
    folder: Path, ports: Ports, now: float, engines: Engines | None = None, kinds: Sequence[str] = ()
) -> Setup:
    """Make what is missing in `folder`, at `now` (seconds since 1970), and read all of it.

    Without `engines` everything is kept in files. `kinds` are modules of kinds, as configuration has them.
    Raises `InvalidError` with a file's mistakes.
    """
    brought: list[tuple[str, str | int | Sequence[str]]] = [("kind_modules", kinds)] if kinds else []
    logs: dict[str, list[tuple[str, str | int]]] = {}
    if engines is not None:
        logs = {name: [("log", log)] for name, log in engines.logs.items()}
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    marker = msgspec.json.encode(_Marker(_FORMAT, __version__)).decode()
    _write_once(folder / "transom.json", marker + "\n")
    hub = [("data", "."), ("host", _HOST), ("port", ports.hub), ("link_keys", "link-keys")]
    store = [("store", engines.store)] if engines else []
    _write_once(hub_file(folder), _toml([*hub, *store, *logs.get("hub", []), *brought]))
    config = load(hub_file(folder), HubConfig)
    signer = ensure_signing_key(config.signing_key)
    if config.tls_cert is None:
        # Now, not when the hub starts: whoever asks it whether it is ready must trust it already.
        ensure_authority(config.authority_file, now)
    for name, port in ports.regions.items():
        key = ensure_secret(folder / "hub" / "link-keys" / f"{name}.key")
        region = [("name", name), ("environment", "demo"), ("data", "."), ("host", _HOST), ("port", port)]
        zones = '\n[[zones]]\nname = "a"\ndriver = "process"\n'
        reached = logs.get(name, [("link_key_hash", hash_secret(key))])
        text = _toml([*region, *reached, *brought]) + zones
        _write_once(region_file(folder, name), text)
        gateway = [("region", name), ("name", "gateway"), ("data", "gateway")]
        reads = logs.get(name, [("log", "log.db")])
        listens = [("host", _HOST), ("port", ports.gateways[name]), ("access_log", "gateway/access.log")]
        trusted = f"trusted_signers = [{_quoted(signer.public_text)}]\n"
        _write_once(gateway_file(folder, name), _toml([*gateway, *reads, *listens]) + trusted)
    setup = read(folder, list(ports.regions))
    client = [("hub", setup.hub_address), ("key_file", _relative(setup.key_file, folder))]
    trusted = [("ca_file", _relative(setup.hub.ca_file, folder))] if setup.hub.ca_file else []
    _write_once(folder / "client.toml", _toml([*client, *trusted]))
    return setup


def read(folder: Path, names: Sequence[str]) -> Setup:
    """The configurations in `folder`. Raises `InvalidError` with every mistake of a file."""
    return Setup(
        folder,
        load(hub_file(folder), HubConfig),
        {name: load(region_file(folder, name), RegionConfig) for name in names},
        {name: load(gateway_file(folder, name), GatewayConfig) for name in names},
    )


def _port_in(file: Path) -> int | None:
    """The port in a configuration file; None when there is no file. What is wrong in it is told by `read`."""
    try:
        data: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    port = data.get("port")
    return port if isinstance(port, int) else None


def _write_once(file: Path, text: str) -> None:
    if not file.exists():
        write_private(file, text)


def _toml(values: Sequence[tuple[str, str | int | Sequence[str]]]) -> str:
    # What JSON says of these is TOML, but for DEL, which no path of ours holds.
    return "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in values)


def _quoted(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which no path of ours holds.
    return msgspec.json.encode(text).decode()


def _relative(path: Path, folder: Path) -> str:
    """`path` seen from `folder` when it is inside, so that the folder may be moved."""
    whole = folder.resolve()
    return str(path.relative_to(whole)) if path.is_relative_to(whole) else str(path)
