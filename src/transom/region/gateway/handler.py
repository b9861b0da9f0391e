"""What a connection's present request is waiting for: a decision that is looked up, or its app (`proxy`)."""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Handler(Protocol):
    """What a request that is not answered at once is waiting for."""

    def body(self, data: bytes) -> None:
        """A piece of the request's body; only after it set itself as the request's `sink`."""
        ...

    def body_end(self) -> None:
        """The request's body is complete."""
        ...

    def client_full(self, full: bool) -> None:  # noqa: FBT001
        """The client is slow to take its answer; or no longer."""
        ...

    def expired(self) -> None:
        """The connection's deadline has passed."""
        ...

    def abandon(self) -> None:
        """Nobody wants the answer any more: let go of everything, write nothing."""
        ...


class Waiting:
    """A request whose decision is being looked up. Its body is not read meanwhile."""

    def __init__(self, task: asyncio.Task[None], give_up: Callable[[], None]) -> None:
        self._task = task
        self._give_up = give_up

    def body(self, data: bytes) -> None:
        """Never called: nobody takes the body yet."""

    def body_end(self) -> None:
        """The body ended with the read that it began in."""

    def client_full(self, full: bool) -> None:  # noqa: FBT001
        """Nothing is being written."""

    def expired(self) -> None:
        """It takes too long."""
        self._task.cancel()
        self._give_up()

    def abandon(self) -> None:
        """The client has left."""
        self._task.cancel()
