"""Rules that the specs of several kinds share."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from transom.model.names import LABEL_CHARACTERS_MAX, LABEL_RULE, is_label
from transom.model.resources import JsonObject
from transom.model.times import read_time


def distinct(names: list[str]) -> list[str]:
    """The names. Raises `ValueError` when one stands twice."""
    if len(set(names)) != len(names):
        raise ValueError("a name stands twice")
    return names


def label(name: str) -> str:
    """The name. Raises `ValueError` when it is no DNS label."""
    if not is_label(name):
        raise ValueError(f"{name!r} {LABEL_RULE}")
    return name


def time(text: str) -> str:
    """The text. Raises `ValueError` when it is no time."""
    read_time(text)
    return text


def micro_time(text: str) -> str:
    """A time in UTC to the microsecond, as the Kubernetes API has a `MicroTime`. Raises `ValueError`."""
    return _in_utc(text, "microseconds")


def seconds(text: str) -> str:
    """A time in UTC to the second, as the Kubernetes API has a `Time`. Raises `ValueError`."""
    return _in_utc(text, "seconds")


def _in_utc(text: str, precision: str) -> str:
    when = datetime.fromtimestamp(read_time(text), UTC)
    return when.isoformat(timespec=precision).replace("+00:00", "Z")


A_SET: JsonObject = {"x-kubernetes-list-type": "set"}
"""Of a list whose order means nothing and in which nothing stands twice: managers each own their items."""


def _not_blank(names: list[str]) -> list[str]:
    if not names:
        raise ValueError("names no region; leave it out to mean every region")
    return names


LabelName = Annotated[
    str, Field(json_schema_extra={"maxLength": LABEL_CHARACTERS_MAX}), AfterValidator(label)
]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(time)]
MicroTime = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(micro_time)]
Seconds = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(seconds)]
RegionNames = Annotated[
    list[LabelName],
    Field(max_length=1000, json_schema_extra=A_SET | {"minItems": 1}),
    AfterValidator(_not_blank),
    AfterValidator(distinct),
]
"""At least one region: an empty list could be read as none and as all."""
