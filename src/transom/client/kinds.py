"""The kinds that a hub serves, its users' own among them, by the names that people call them.

Learnt from the hub, by aggregated discovery: what is installed beside a client need not know a kind to get,
apply or delete it. Next on the data's way: `hub`, which asks for resources of what is found here.
"""

import asyncio
from collections.abc import Iterable, Iterator

from transom.client.hub import HubClient
from transom.model.errors import NotFoundError
from transom.model.kinds import Kind
from transom.model.resources import JsonObject


class Kinds:
    """Kinds by their names; where two share one, the first has it. They have no schema here."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._declared: dict[str, list[Kind]] = {}
        self._called: dict[str, Kind] = {}
        for kind in kinds:
            self._declared.setdefault(kind.name, []).append(kind)
            for name in (kind.name.lower(), kind.plural, kind.qualified, *kind.short_names):
                self._called.setdefault(name, kind)

    def named(self, name: str) -> Kind:
        """The kind that people call `name`, short names included, in any case. Raises `NotFoundError`."""
        kind = self._called.get(name.lower())
        if kind is None:
            raise self._unknown(name)
        return kind

    def declared(self, name: str, api_version: str = "") -> Kind:
        """The kind that a manifest declares; one that does not say its apiVersion means the first.

        Raises `NotFoundError`.
        """
        kinds = self._declared.get(name, [])
        if not kinds:
            raise self._unknown(name)
        for kind in kinds:
            if api_version in ("", kind.api_version):
                return kind
        there = " and ".join(kind.api_version for kind in kinds)
        raise NotFoundError(f"unknown kind {name!r} of {api_version!r}; there is that of {there}")

    def _unknown(self, name: str) -> NotFoundError:
        return NotFoundError(f"unknown kind {name!r}; there are {', '.join(sorted(self._declared))}")


async def kinds_of(hub: HubClient) -> Kinds:
    """The kinds that `hub` serves now. Raises what `HubClient` raises."""
    core, groups = await asyncio.gather(hub.discovery("/api"), hub.discovery("/apis"))
    return Kinds(kind for group in (*core, *groups) for kind in _kinds(group))


def _kinds(group: JsonObject) -> Iterator[Kind]:
    """What can be got of an `APIGroupDiscovery`; a question that is answered and not stored cannot."""
    for version in group["versions"]:
        for found in version["resources"]:
            if "get" in found["verbs"]:
                yield Kind(
                    name=found["responseKind"]["kind"],
                    plural=found["resource"],
                    spec=None,
                    group=found["responseKind"]["group"],
                    version=found["responseKind"]["version"],
                    namespaced=found["scope"] == "Namespaced",
                    short_names=tuple(found.get("shortNames", ())),
                )
