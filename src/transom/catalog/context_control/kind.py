"""What a ContextFreeze and a ContextOverride are."""

from collections.abc import Iterator

from pydantic import Field

from transom.catalog.rules import Time
from transom.model.kinds import Column, Kind, Spec
from transom.model.names import Key
from transom.model.resources import Resource


class ContextFreezeSpec(Spec):
    """Its name is a region's. As long as it exists, no context at all goes out to that region."""

    reason: str = Field(default="", max_length=1000)
    """Why, for people."""


class ContextOverrideSpec(Spec):
    """Its name is that of something a guard holds back, as `transom contexts holds` shows it."""

    up_to: int = Field(ge=1)
    """How many rows of it the guard lets pass."""
    until: Time
    """Until when, with its offset (RFC 3339)."""
    content: str | None = Field(default=None, max_length=64)
    """The content of the hold when somebody looked at it: if others are held by then, none pass. Left out,
    any rows are meant.
    """


def _references(freeze: Resource) -> Iterator[Key]:
    yield Key("Region", "", freeze.metadata.name)


CONTEXT_FREEZE = Kind(
    name="ContextFreeze",
    plural="contextfreezes",
    spec=ContextFreezeSpec,
    namespaced=False,
    references=_references,
    columns=(Column("REASON", lambda freeze: str(freeze.spec.get("reason", ""))),),
)

CONTEXT_OVERRIDE = Kind(
    name="ContextOverride",
    plural="contextoverrides",
    spec=ContextOverrideSpec,
    namespaced=False,
    dotted_names=True,
    columns=(
        Column("UP TO", lambda override: str(override.spec.get("upTo", ""))),
        Column("UNTIL", lambda override: str(override.spec.get("until", ""))),
    ),
)
