"""What the builder of contexts must remember, kept in the store in the same transactions as its rows.

Next on the data's way: `store`.
"""

from typing import Self

import msgspec

from transom.hub.contexts.planning import Cause, Refusal
from transom.hub.contexts.row import EVERY_REGION
from transom.model.resources import to_json

PROGRESS = "progress"
"""Under this name: the revision up to which changed resources were looked at."""
BUILDER = "builder"
GATES = "gates"
SOAK_GRANT = "soak-grant"

HOLDS_MAX = 200
REFUSED_MAX = 100


class Scope(msgspec.Struct, frozen=True, order=True):
    """Some contexts: those of a kind and tenant. An empty `kind` stands for every kind, an empty `tenant`
    for every tenant's.
    """

    kind: str
    tenant: str = ""


class Job(msgspec.Struct, frozen=True):
    """Contexts to be looked at page by page, because there may be very many.

    First everything is counted, so that the guards see the whole and not a page, then it is written. A job
    that was interrupted begins its phase again; what is written already is no difference any more.
    `revision` is that of the change that caused it (0: no resource did): until the job is done, nobody may
    claim to know all up to there. `bulk` and `held` (kinds) are what counting has decided.
    """

    scope: Scope
    cause: Cause
    revision: int = 0
    writing: bool = False
    bulk: bool = False
    held: tuple[str, ...] = ()


class Hold(msgspec.Struct, frozen=True):
    """What a guard holds back: how many rows of its scope would change or go, of how many there are, and
    which regions (as in a row) they are for. `mark` tells which rows they are (`row.mark_of`).
    """

    id: str
    guard: str
    scope: Scope
    changes: int
    deletes: int
    of: int
    examples: tuple[str, ...]
    since: float
    regions: str = EVERY_REGION
    mark: int = 0

    @property
    def content(self) -> str:
        """What tells these rows from others, for people's overrides."""
        return f"{self.mark:016x}"


class Spent(msgspec.Struct, frozen=True):
    """How many rows an override has let pass; `over`: what it was given for has passed, or is gone.

    `uid` and `generation` are the override's: given again, it is another, of which nothing is spent.
    """

    uid: str
    generation: int
    rows: int = 0
    over: bool = False


class Builder(msgspec.Struct, frozen=True):
    """Schemas built by kind, jobs to do, what guards hold back, subjects that give no good context, and what
    is spent of overrides, by name.

    `soaks`: by kind, the revision that the gate must let pass before a raised schema counts as tried.
    """

    schemas: dict[str, int] = {}
    soaks: dict[str, int] = {}
    jobs: tuple[Job, ...] = ()
    holds: tuple[Hold, ...] = ()
    refused: tuple[Refusal, ...] = ()
    spent: dict[str, Spent] = {}

    @classmethod
    def read(cls, data: bytes | None) -> Self:
        """Read what `written` wrote; nothing was remembered: as it is at the very beginning."""
        return msgspec.json.decode(data, type=cls) if data else cls()

    def written(self) -> bytes:
        """As it stands in the store."""
        return to_json(self)

    def soaking(self, approved: int) -> frozenset[str]:
        """The kinds whose raised schema is still being built, or soaks; the gate stands at `approved`.

        A single change is of the new schema, too: on the fast lane it would reach every region with it.
        """
        built = {job.scope.kind for job in self.jobs if job.cause.what == "schema"} & self.schemas.keys()
        return frozenset(built | {kind for kind, upto in self.soaks.items() if upto > approved})

    def with_job(self, job: Job) -> Self:
        """With a job added; one for the same contexts and of the same cause is begun again instead.

        What was decided for it stays: a bulk change does not become a small one because half of it is done.
        """
        same = [held for held in self.jobs if (held.scope, held.cause) == (job.scope, job.cause)]
        others = [held for held in self.jobs if held not in same]
        if same:
            bulk = job.bulk or any(held.bulk for held in same)
            revisions = [each.revision for each in (job, *same) if each.revision]
            job = msgspec.structs.replace(job, bulk=bulk, revision=min(revisions, default=0))
        return msgspec.structs.replace(self, jobs=(*others, job))

    def with_hold(self, hold: Hold) -> Self:
        """With a hold added, or brought up to date."""
        others = tuple(held for held in self.holds if held.id != hold.id)
        return msgspec.structs.replace(self, holds=(*others, hold))
