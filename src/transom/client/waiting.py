"""Waiting until something is so of a resource, by watching it: looked at once, then whenever it changes.

A condition counts only when the status answers the newest spec (`observedGeneration`): a status that is
older says nothing about what was just declared.
"""

from collections.abc import Callable
from contextlib import aclosing

from transom.client.hub import ApiError, HubClient
from transom.model.errors import UnreachableError
from transom.model.kinds import Kind
from transom.model.resources import Resource, conditions_of
from transom.runtime.backoff import Backoff
from transom.runtime.clock import SystemClock
from transom.runtime.randomness import Randomness

Missing = Callable[[Resource | None], str]
"""What is still missing, in words; empty when it is so. The resource is None when it does not exist."""

_GONE = 404
_EXPIRED = 410


def until_condition(condition: str, value: str = "True") -> Missing:
    """`condition` has `value` for the newest spec. A resource that is not there raises `ApiError` 404."""

    def missing(resource: Resource | None) -> str:
        if resource is None:
            raise ApiError({"code": _GONE, "reason": "NotFound", "message": "it does not exist"})
        return lacking(resource, condition, value)

    return missing


def until_deleted(resource: Resource | None) -> str:
    """It does not exist any more."""
    if resource is None:
        return ""
    if not resource.deleting:
        return "nobody has asked for its deletion yet"
    return f"it waits for {', '.join(resource.metadata.finalizers)}"


def lacking(resource: Resource, condition: str, value: str) -> str:
    """What `resource` lacks for its condition to be `value` for its newest spec; empty when nothing."""
    generation = resource.metadata.generation
    observed = int(resource.status.get("observedGeneration", 0))
    if observed < generation:
        return f"its status is of generation {observed}, the newest is {generation}"
    held = resource.condition(condition)
    if held is None:
        known = ", ".join(found.type for found in conditions_of(resource.status))
        return f"there is no condition {condition} yet" + (f", only {known}" if known else "")
    if held.status == value:
        return ""
    said = ": ".join(part for part in (held.reason, held.message) if part)
    return f"{condition} is {held.status}" + (f" ({said})" if said else "")


async def wait_for(
    hub: HubClient, kind: Kind, name: str, tenant: str, missing: Missing, tell: Callable[[str], None]
) -> None:
    """Wait until nothing is `missing`; `tell` gets what is, each time it is something else.

    A hub that goes away meanwhile is waited for too. Raises `ApiError`, and `UnreachableError` when the hub
    does not answer the first time. Whoever calls bounds the time.
    """
    waiter = _Waiter(hub, kind, name, tenant, missing, tell)
    backoff = Backoff(Randomness())
    while True:
        try:
            if not await waiter.look():
                backoff.reset()
                await waiter.follow()
        except UnreachableError as error:
            if not waiter.answered:
                raise
            waiter.say(str(error))
        except ApiError as error:
            if error.code != _EXPIRED:
                raise
        else:
            return
        await SystemClock().sleep(backoff.next_seconds())


class _Waiter:
    def __init__(
        self,
        hub: HubClient,
        kind: Kind,
        name: str,
        tenant: str,
        missing: Missing,
        tell: Callable[[str], None],
    ) -> None:
        self.answered = False
        self._hub = hub
        self._kind = kind
        self._name = name
        self._tenant = tenant
        self._missing = missing
        self._tell = tell
        self._said = ""
        self._revision = ""

    async def look(self) -> bool:
        """Whether it is so now."""
        resource = await self._hub.find(self._kind, self._name, self._tenant)
        self.answered = True
        self._revision = resource.metadata.resource_version if resource else ""
        return self._is_so(resource)

    async def follow(self) -> None:
        """Watch from where `look` has looked, until it is so."""
        async with aclosing(self._hub.watch(self._kind, self._tenant, self._revision)) as events:
            async for event in events:
                if event.object.metadata.name == self._name and self._is_so(
                    None if event.type == "DELETED" else event.object
                ):
                    return

    def _is_so(self, resource: Resource | None) -> bool:
        missing = self._missing(resource)
        self.say(missing)
        return not missing

    def say(self, missing: str) -> None:
        """Tell what is missing, once."""
        if missing and missing != self._said:
            self._tell(missing)
        self._said = missing
