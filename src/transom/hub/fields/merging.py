"""The structured merge: an object, and over it what somebody applies.

Nothing is taken away here: what a manager no longer applies is removed by `managers`, who knows what it
applied before.
"""

from collections.abc import Iterator
from typing import Any, cast

from transom.hub.fields.sets import Path, field, spoken
from transom.hub.fields.shapes import Shape
from transom.hub.fields.walks import is_open, items_of
from transom.model.errors import Problem
from transom.model.resources import JsonObject


def merge(shape: Shape, live: Any, applied: Any) -> Any:
    """`live` with `applied` over it.

    Objects merge field by field, sets and keyed lists item by item; everything else is replaced. A null in
    place of an object or list takes nothing away.
    """
    if is_open(live, shape):
        if is_open(applied, shape):
            return _merged_object(shape, live, applied)
        return live if applied is None else applied
    here = items_of(live, shape)
    if here is None:
        return applied
    there = items_of(applied, shape)
    if there is None:
        return live if applied is None else applied
    return list(_merged_items(shape, here, there))


def _merged_object(shape: Shape, live: JsonObject, applied: JsonObject) -> JsonObject:
    merged = dict(live)
    for name, value in applied.items():
        merged[name] = merge(shape.of(name), live[name], value) if name in live else value
    return merged


def _merged_items(shape: Shape, live: list[tuple[str, Any]], applied: list[tuple[str, Any]]) -> Iterator[Any]:
    """The items in the order of `applied`; those it does not have stay where they stood between the others.

    An item of `live` that stands twice has no inside to merge with: the applied one takes its place.
    """
    given = {element for element, _ in applied}
    held: dict[str, Any] = {}
    for element, value in live:
        held[element] = None if element in held else value
    shared = iter([element for element, _ in applied if element in held])
    next_shared = next(shared, None)
    at = 0
    for element, value in applied:
        while at < len(live) and live[at][0] != next_shared:
            if live[at][0] not in given:
                yield live[at][1]
            at += 1
        if element not in held:
            yield value
            continue
        yield merge(shape.of_items, held[element], value)
        next_shared = next(shared, None)
    yield from (value for element, value in live[at:] if element not in given)


def list_problems(shape: Shape, value: Any, path: Path = ()) -> Iterator[Problem]:
    """What is wrong with the sets and keyed lists of what somebody applies: items that are not told apart."""
    if is_open(value, shape):
        for name, inner in value.items():
            yield from list_problems(shape.of(name), inner, (*path, field(name)))
        return
    if not isinstance(value, list) or shape.lists == "atomic":
        return
    here = spoken(path).removeprefix(".")
    seen: set[str] = set()
    for number, inner in enumerate(cast("list[Any]", value)):
        elements = shape.elements([inner])
        if elements is None:
            what = f"an object with {' or '.join(shape.keys)}" if shape.lists == "map" else "a plain value"
            yield Problem(f"{here}[{number}]", f"must be {what}, by which the items are told apart")
            continue
        if elements[0] in seen:
            yield Problem(f"{here}[{number}]", f"duplicate entries for key {spoken((elements[0],))}")
        seen.add(elements[0])
        yield from list_problems(shape.of_items, inner, (*path, elements[0]))
