"""A kind of one's own for clients of every kind: its status is written through the API."""

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from transom.model.kinds import Spec
from transom.model.own import kind


class Port(Spec):
    """Where a gadget listens."""

    name: str
    """What it is called: unique in its gadget."""
    number: int = Field(ge=1, le=65535)
    """The number of the port."""


class Gadget(Spec):
    """Something to hold in one's hand."""

    size: int = Field(default=1, ge=0, le=100)
    """How large it is, in centimetres."""
    colour: str = ""
    """What it is painted with."""
    ports: list[Port] = Field(
        default_factory=list,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    """Where it listens."""


class GadgetStatus(BaseModel):
    """What is true of a gadget."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    painted: str = ""
    """What it was painted with last."""


KINDS = [
    kind(
        Gadget,
        group="clients.example",
        short_names=("gd",),
        status=GadgetStatus,
        columns={"SIZE": "spec.size", "PAINTED": "status.painted"},
    )
]
