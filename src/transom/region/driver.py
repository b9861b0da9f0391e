"""What a driver promises: it makes things real in one zone and says what is true there.

A driver takes orders and returns at once; what came of them is read with `observe`. So a slow stop never
keeps an agent from looking after everything else, and no instance is ever worked on twice at a time.
Next on the data's way: `agent`.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from transom.runtime.signals import Level

Phase = Literal["Starting", "Healthy", "Unhealthy", "Dead", "Stopping"]


class HealthCheck(msgspec.Struct, frozen=True):
    """How to tell whether an instance serves; as `catalog.deployment.kind.HealthCheck`. Times are seconds."""

    kind: Literal["http", "tcp"] = "tcp"
    path: str = "/"
    interval_seconds: float = 1.0
    timeout_seconds: float = 1.0
    unhealthy_after: int = 3
    start_seconds: float = 30.0


class Launch(msgspec.Struct, frozen=True):
    """What to run as the instance called `name`.

    `owner` is the key of the desired record it runs for, `uid` that resource's. `fingerprint` is equal for
    instances that need not replace each other. `$(NAME)` in an argument stands for a variable of its
    environment: `env`, and PORT, which the driver chooses.
    """

    name: str
    owner: str
    uid: str
    app: str
    version: str
    fingerprint: str
    command: tuple[str, ...]
    env: dict[str, str] = {}
    check: HealthCheck = HealthCheck()


class Observed(msgspec.Struct, frozen=True):
    """What is true of one instance.

    `since` is when it came into `phase` (the clock's monotonic seconds). `failures` counts its deaths since
    it last ran well for a while, `restarts` all starts but the first. `served` says whether it was ever
    healthy. `output` is why it is not healthy, and what it wrote last; empty when all is well.
    """

    launch: Launch
    phase: Phase
    host: str
    port: int
    pid: int = 0
    started_at: str = ""
    since: float = 0.0
    failures: int = 0
    restarts: int = 0
    served: bool = False
    output: str = ""

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.launch.name


class Driver(Protocol):
    """Instances in one zone. Used by one agent; opened as an async context. Leaving the context leaves
    everything running, and opening it again finds it (invariant 5).
    """

    changed: Level
    """Rises when anything that `observe` tells has changed."""

    def changes(self) -> frozenset[str]:
        """The owners whose instances changed since this was last asked; the first time, all there are."""
        ...

    def observe(self, owner: str) -> Sequence[Observed]:
        """The instances of `owner`, ordered by name."""
        ...

    def start(self, launch: Launch) -> None:
        """Have it run. Nothing happens when an instance of this name lives; a dead one is started again."""
        ...

    def stop(self, name: str) -> None:
        """Have it ended and forgotten: it is observed as "Stopping", and then no more."""
        ...

    def end(self, name: str) -> None:
        """Have its process ended and the instance kept: it is "Dead" then, as if it had crashed."""
        ...
