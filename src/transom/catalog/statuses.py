"""What the statuses of several kinds share. They describe; who writes a status is trusted to keep to them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Status(BaseModel):
    """Base of every kind's status. A region of another release may say more than is known here."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class ConditionStatus(Status):
    """One statement about a resource."""

    type: str
    """What the statement is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it is so."""
    reason: str = ""
    """Why, in one word for programs."""
    message: str = ""
    """Why, for people."""
    last_transition_time: str = ""
    """When `status` last changed."""
    observed_generation: int = 0
    """The generation that the statement is about."""


Conditions = Annotated[
    list[ConditionStatus],
    Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
