"""Whether what many clients were told of one object can be true: one state at a time, one after another.

A history is linearizable when each operation can be thought to happen at one moment between its asking and
its answer, so that one copy of the object, asked at these moments one after another, gives the same answers
(Herlihy and Wing, 1990). The search is that of Wing and Gong (1993) with Lowe's memory of what was tried
(2017): a set of operations that are done, and the state they leave, is entered once. Objects are independent
of each other, so each is judged alone.

The model knows nothing of the hub: what a write leaves is told apart by its value, which no other write has,
and the resourceVersion of a value is what answers say of it. An operation without an answer may have
happened at any time after it was asked, or never. `history_parts` makes histories of a hub's answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Verb: TypeAlias = Literal["get", "create", "replace", "patch", "apply", "delete"]
READS: tuple[Verb, ...] = ("get",)
CHANGES: tuple[Verb, ...] = ("replace", "patch")
"""What changes only an object that is there."""


@dataclass(frozen=True)
class Operation:
    """What one client asked of one object, and was answered.

    `asked` and `answered` are places in the order of everything that was asked and answered; `answered` is
    None when no answer came. `value` is what a write writes, of which no two are the same; `expects` is the
    resourceVersion on which a write insists ("": on none). `code` is that of the answer; with 200 and 201 the
    object had `version` and `found` (a deletion tells neither).
    """

    verb: Verb
    asked: int
    answered: int | None
    value: str = ""
    expects: str = ""
    code: int = 0
    version: str = ""
    found: str = ""

    def __str__(self) -> str:
        told = f"{self.code} {self.found}@{self.version}".rstrip(" @") if self.answered else "no answer"
        wants = f" {self.value}" * bool(self.value) + f" over @{self.expects}" * bool(self.expects)
        return f"[{self.asked}-{self.answered or ''}] {self.verb}{wants}: {told}"


class State(NamedTuple):
    """The object: its value (None: it is not there), and the newest version that it is known to have had."""

    value: str | None = None
    newest: int = 0


class Refuted(NamedTuple):
    """Why a history is none of one object: the longest order found, and what fits nowhere behind it."""

    order: Sequence[Operation]
    left: Sequence[Operation]

    def __str__(self) -> str:
        told = "\n  ".join(map(str, self.order[-12:])) or "nothing"
        return f"not linearizable; behind\n  {told}\nnone of these can be next:\n  " + "\n  ".join(
            map(str, self.left[:12])
        )


def refuted(history: Sequence[Operation]) -> Refuted | None:
    """None when `history`, all that was asked of one object, is linearizable; else how far it is."""
    versions = versions_of(history)
    if isinstance(versions, Refuted):
        return versions
    operations = sorted(
        (each for each in history if each.answered is not None or each.verb not in READS),
        key=lambda each: each.asked,
    )
    return _Search(operations, versions).run()


def versions_of(history: Sequence[Operation]) -> dict[str, str] | Refuted:
    """The resourceVersion of each value, by the answers that show it; they must agree, and none be twice."""
    versions: dict[str, str] = {}
    values: dict[str, str] = {}
    for each in history:
        if each.version:
            same = versions.setdefault(each.found, each.version) == each.version
            if not same or values.setdefault(each.version, each.found) != each.found:
                others = (
                    other for other in history if each.found == other.found or each.version == other.version
                )
                return Refuted([], list(others))
    return versions


class _Search:
    """Looks for an order, depth first. Sets of operations are bits of a number."""

    def __init__(self, operations: Sequence[Operation], versions: dict[str, str]) -> None:
        self._operations = operations
        self._versions = versions
        self._needed = sum(1 << at for at, each in enumerate(operations) if each.answered is not None)

    def run(self) -> Refuted | None:
        tried: set[tuple[int, State]] = set()
        best: list[int] = []
        path: list[int] = []
        done, state = self._read(0, State(), path)
        turns = [(len(path), self._choices(done, state))]
        while turns:
            if done & self._needed == self._needed:
                return None
            if len(path) > len(best):
                best = list(path)
            length, choices = turns[-1]
            for at, before, after in choices:
                del path[length:]
                path.append(at)
                done, state = self._read(before | 1 << at, after, path)
                if (done, state) not in tried:
                    tried.add((done, state))
                    turns.append((len(path), self._choices(done, state)))
                    break
            else:
                turns.pop()
        placed = set(best)
        left = [each for at, each in enumerate(self._operations) if at not in placed]
        return Refuted([self._operations[at] for at in best], left)

    def _choices(self, done: int, state: State) -> Iterator[tuple[int, int, State]]:
        """What may happen next and changes something: its place, what was done before, the state after."""
        for at in self._open(done):
            after = self._after(state, self._operations[at])
            if after is not None and after != state:
                yield at, done, after

    def _read(self, done: int, state: State, path: list[int]) -> tuple[int, State]:
        """Have all happen that may happen now and changes nothing: later it is no easier for any other."""
        while True:
            for at in self._open(done):
                if self._after(state, self._operations[at]) == state and self._needed >> at & 1:
                    done |= 1 << at
                    path.append(at)
                    break
            else:
                return done, state

    def _open(self, done: int) -> Iterator[int]:
        """What is not done and was asked before anything that is not done was answered."""
        first: float = float("inf")
        for at, each in enumerate(self._operations):
            if each.asked > first:
                return
            if not done >> at & 1:
                yield at
                first = min(first, each.answered if each.answered is not None else first)

    def _after(self, state: State, operation: Operation) -> State | None:
        """The state after `operation`; None when it cannot happen, or not be answered so, in this state."""
        if operation.answered is None:
            code = self._code(state, operation)
            return self._written(state, operation) if code < 300 else None
        if operation.code != self._code(state, operation):
            return None
        if operation.verb in READS:
            return state if state.value is None or operation.found == state.value else None
        if operation.code >= 300:
            return state
        if operation.verb != "delete" and operation.found != operation.value:
            return None
        return self._written(state, operation)

    def _code(self, state: State, operation: Operation) -> int:
        """What the object answers in this state."""
        if operation.verb == "create":
            return 201 if state.value is None else 409
        if state.value is None:
            return 201 if operation.verb == "apply" else 404
        if operation.expects and operation.expects != self._versions.get(state.value):
            return 409
        return 200

    def _written(self, state: State, operation: Operation) -> State | None:
        """What a write leaves; its version must be newer than any before."""
        if operation.verb == "delete":
            return State(None, state.newest)
        version = int(self._versions.get(operation.value, 0))
        if version and version <= state.newest:
            return None
        return State(operation.value, version or state.newest)
