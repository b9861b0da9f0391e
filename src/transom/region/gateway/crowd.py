"""Who holds how many of a gateway's connections, so that nobody holds them all.

One address may hold a quarter of them; of IPv6 one /64, which is what one customer has. Fronts may hold all:
they hold connections for everybody behind them. Where there is no room, whoever is between two requests makes
some: the one first that would be closed first anyway.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from ipaddress import IPv6Address, ip_address, ip_network

from transom.region.gateway.connection import Connection

_SHARE = 4
_CUSTOMER_BITS = 64
_ANYBODY = ""


class Crowd:
    """Counts connections, at most `most`; `fronts` are addresses and networks."""

    def __init__(self, most: int, fronts: Sequence[str]) -> None:
        self._most = most
        self._share = max(1, most // _SHARE)
        self._fronts = [ip_network(each) for each in fronts]
        self._names: dict[Connection, str] = {}
        self._counts: dict[str, int] = {}
        self._spare: dict[str, list[Connection]] = {}
        self._looked_at = -1.0

    def __len__(self) -> int:
        return len(self._names)

    def admit(self, connection: Connection, now: float) -> bool:
        """Count one more connection, if there is room or can be made; `now` moves a few times a second."""
        name = self._name(connection.client)
        count = self._counts.get(name, 0)
        whose = name if name != _ANYBODY and count >= self._share else _ANYBODY
        is_full = whose != _ANYBODY or len(self._names) >= self._most
        if is_full and not self._make_room(whose, now):
            return False
        self._names[connection] = name
        self._counts[name] = self._counts.get(name, 0) + 1
        return True

    def left(self, connection: Connection) -> None:
        """A connection is gone; perhaps one that was never counted."""
        name = self._names.pop(connection, None)
        if name is None:
            return
        self._counts[name] -= 1
        if not self._counts[name]:
            del self._counts[name]

    def _name(self, client: str) -> str:
        """Under which name the connections of an address are counted; `_ANYBODY` for a front's."""
        try:
            address = ip_address(client)
        except ValueError:
            return client
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or address
        if any(address in network for network in self._fronts):
            return _ANYBODY
        if isinstance(address, IPv6Address):
            return f"{int(address) >> _CUSTOMER_BITS:x}/{_CUSTOMER_BITS}"
        return str(address)

    def _make_room(self, whose: str, now: float) -> bool:
        if self._looked_at != now:
            self._looked_at = now
            self._spare = _idle(self._names)
        spare = self._spare.get(whose, [])
        while spare:
            connection = spare.pop()
            if connection.idle and connection in self._names:
                self.left(connection)
                connection.transport.abort()
                return True
        return False


def _idle(names: dict[Connection, str]) -> dict[str, list[Connection]]:
    """Those that may go, by name and under `_ANYBODY` all; the last one first."""
    found: defaultdict[str, list[Connection]] = defaultdict(list)
    idle: Collection[Connection] = [each for each in names if each.idle]
    for connection in sorted(idle, key=_deadline, reverse=True):
        found[_ANYBODY].append(connection)
        if (name := names[connection]) != _ANYBODY:
            found[name].append(connection)
    return found


def _deadline(connection: Connection) -> float:
    return connection.deadline
