"""Walks over objects: which fields one has, what differs between two, an object without some of its fields.

Values decide how they are walked, by the shape of their place: a value of the wrong type is a leaf, never an
error. An item that stands twice in a set or keyed list is owned as a whole, all of it.
Next on the data's way: `merging` and `managers`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeGuard, cast

from transom.hub.fields.sets import FieldSet, Path, field
from transom.hub.fields.shapes import Shape
from transom.model.resources import JsonObject


class Difference(NamedTuple):
    """Where an object differs from the one before it; no field is in more than one of the sets."""

    removed: FieldSet
    modified: FieldSet
    added: FieldSet


_ABSENT: Final = object()


def is_open(value: Any, shape: Shape) -> TypeGuard[JsonObject]:
    """Whether this is an object that is owned field by field."""
    return isinstance(value, dict) and not shape.atomic


def items_of(value: Any, shape: Shape) -> list[tuple[str, Any]] | None:
    """The items of a list with their elements, in its order; None when the value is owned as a whole."""
    if not isinstance(value, list):
        return None
    items = cast("list[Any]", value)
    elements = shape.elements(items)
    return None if elements is None else list(zip(elements, items, strict=True))


def fields_of(shape: Shape, value: Any) -> FieldSet:
    """The fields that somebody sets who applies `value`: its leaves, and the items of its lists.

    What is empty is a leaf. (For Kubernetes an empty set or keyed list is no field at all; applying one twice
    would change the object twice.)
    """
    found: set[Path] = set()
    _collect(shape, value, (), found)
    found.discard(())
    return frozenset(found)


def _collect(shape: Shape, value: Any, path: Path, found: set[Path]) -> None:
    if is_open(value, shape):
        for name, inner in value.items():
            at = (*path, field(name))
            if name not in shape.fields or inner is None or inner in ({}, []):
                found.add(at)
            _collect(shape.of(name), inner, at, found)
        return
    items = items_of(value, shape)
    if items is None:
        found.add(path)
        return
    for element, same in _by_element(items).items():
        at = (*path, element)
        found.add(at)
        if len(same) == 1:
            _collect(shape.of_items, same[0], at, found)


def difference(shape: Shape, before: Any, after: Any) -> Difference:
    """What differs in `after`. A place that comes or goes is told with all that is in it."""
    removed: set[Path] = set()
    modified: set[Path] = set()
    added: set[Path] = set()
    _compare(shape, before, after, (), (removed, modified, added))
    for found in (removed, modified, added):
        found.discard(())
    return Difference(frozenset(removed), frozenset(modified), frozenset(added))


def places_of(shape: Shape, value: Any) -> FieldSet:
    """Every place there is in `value`: its fields, and all they are in."""
    return difference(shape, {}, value).added


_Found = tuple[set[Path], set[Path], set[Path]]


def _compare(shape: Shape, before: Any, after: Any, path: Path, found: _Found) -> None:
    removed, modified, added = found
    old, new = _parts(shape, before), _parts(shape, after)
    if before is _ABSENT:
        added.add(path)
    elif after is _ABSENT:
        removed.add(path)
    elif not old and not new:
        if not _same(before, after):
            modified.add(path)
        return
    elif (old is None and before is not None) or (new is None and after is not None):
        modified.add(path)  # a leaf became an object, or the other way round
    old, new = old or {}, new or {}
    for element in {**old, **new}:
        _compare_part(shape, element, old.get(element, ()), new.get(element, ()), (*path, element), found)


def _compare_part(
    shape: Shape, element: str, old: Iterable[Any], new: Iterable[Any], at: Path, found: _Found
) -> None:
    removed, modified, added = found
    inner = shape.of(element[2:]) if element[0] == "f" else shape.of_items
    before, after = list(old), list(new)
    if len(before) > 1 and len(after) > 1:
        if not _same(before, after):
            modified.add(at)
        return
    # What stands more than once has no inside: it comes, or goes, as it is.
    if len(before) > 1:
        removed.add(at)
    if len(after) > 1:
        added.add(at)
    single = [each[0] if len(each) == 1 else _ABSENT for each in (before, after)]
    if single != [_ABSENT, _ABSENT]:
        _compare(inner, single[0], single[1], at, found)


def _parts(shape: Shape, value: Any) -> Mapping[str, tuple[Any, ...] | list[Any]] | None:
    """What is in an object or list, by element; None for a leaf."""
    if is_open(value, shape):
        return {field(name): (inner,) for name, inner in value.items()}
    items = items_of(value, shape)
    return None if items is None else _by_element(items)


def _by_element(items: list[tuple[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for element, value in items:
        found.setdefault(element, []).append(value)
    return found


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("JsonObject", one), cast("JsonObject", other)
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    if isinstance(one, list) and isinstance(other, list):
        ones, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(ones) == len(others) and all(map(_same, ones, others))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def without(shape: Shape, value: Any, fields: FieldSet, path: Path = ()) -> Any:
    """The value without some fields and items; an object or list that loses all it had stays, empty."""
    if is_open(value, shape):
        return {
            name: without(shape.of(name), inner, fields, at)
            for name, inner in value.items()
            if (at := (*path, field(name))) not in fields
        }
    items = items_of(value, shape)
    if items is None:
        return value
    return [
        without(shape.of_items, inner, fields, at)
        for element, inner in items
        if (at := (*path, element)) not in fields
    ]


def with_declared(shape: Shape, fields: FieldSet) -> FieldSet:
    """The set, and every field that the schema declares on the way to one of its fields."""
    found = set(fields)
    for path in fields:
        here = shape
        for depth, element in enumerate(path[:-1], 1):
            if element[0] != "f":
                here = here.of_items
                continue
            name = element[2:]
            if name in here.fields:
                found.add(path[:depth])
            here = here.of(name)
    return frozenset(found)
