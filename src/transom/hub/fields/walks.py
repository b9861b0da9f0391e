"""Walks over objects: which fields one has, what differs between two, an object without some of its fields.

Values decide how they are walked, by the shape of their place: a value of the wrong type is a leaf, never an
error. An item that stands twice in a set or keyed list is owned as a whole, all of it.
Next on the data's way: `merging` and `managers`.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypeGuard, cast

from transom.hub.fields.sets import FieldSet, Path, field
from transom.hub.fields.shapes import Shape
from transom.model.resources import JsonObject


class Difference(NamedTuple):
    """Where an object differs from the one before it; no field is in more than one of the sets."""

    removed: FieldSet
    modified: FieldSet
    added: FieldSet


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
    found: set[Path] = set()
    _collect_all(shape, value, (), found)
    found.discard(())
    return frozenset(found)


def _collect_all(shape: Shape, value: Any, path: Path, found: set[Path]) -> None:
    found.add(path)
    if is_open(value, shape):
        for name, inner in value.items():
            _collect_all(shape.of(name), inner, (*path, field(name)), found)
        return
    for element, same in _by_element(items_of(value, shape) or ()).items():
        at = (*path, element)
        if len(same) == 1:
            _collect_all(shape.of_items, same[0], at, found)
        else:
            found.add(at)


_Found = tuple[set[Path], set[Path], set[Path]]
_PLAIN: Final = frozenset((str, int, float, bool))


def _compare(shape: Shape, before: Any, after: Any, path: Path, found: _Found) -> None:
    removed, modified, added = found
    if is_open(before, shape) and is_open(after, shape):
        _compare_objects(shape, before, after, path, found)
        return
    old, new = items_of(before, shape), items_of(after, shape)
    if old is not None and new is not None:
        _compare_items(shape, old, new, path, found)
        return
    gone, come = _inside(shape, before, path), _inside(shape, after, path)
    removed |= gone
    added |= come
    said = before is not None and after is not None  # null is no value beside one with something in it
    if said if gone or come else not _same(before, after):
        modified.add(path)


def _inside(shape: Shape, value: Any, path: Path) -> set[Path]:
    found: set[Path] = set()
    _collect_all(shape, value, path, found)
    found.discard(path)
    return found


def _compare_objects(shape: Shape, before: JsonObject, after: JsonObject, path: Path, found: _Found) -> None:
    removed, modified, added = found
    for name, old in before.items():
        if name not in after:
            _collect_all(shape.of(name), old, (*path, field(name)), removed)
            continue
        new = after[name]
        if old is new:
            continue
        if type(old) is type(new) and type(old) in _PLAIN:
            if old != new:
                modified.add((*path, field(name)))
            continue
        _compare(shape.of(name), old, new, (*path, field(name)), found)
    for name, new in after.items():
        if name not in before:
            _collect_all(shape.of(name), new, (*path, field(name)), added)


def _compare_items(
    shape: Shape, before: list[tuple[str, Any]], after: list[tuple[str, Any]], path: Path, found: _Found
) -> None:
    removed, modified, added = found
    olds, news = _by_element(before), _by_element(after)
    for element in {**olds, **news}:
        at, old, new = (*path, element), olds.get(element, []), news.get(element, [])
        if len(old) == len(new) == 1:
            _compare(shape.of_items, old[0], new[0], at, found)
        elif len(old) > 1 and len(new) > 1:
            if not _same(old, new):
                modified.add(at)
        else:
            # What stands more than once has no inside: it comes, or goes, as it is.
            for values, into in ((old, removed), (new, added)):
                if len(values) == 1:
                    _collect_all(shape.of_items, values[0], at, into)
                elif values:
                    into.add(at)


def _by_element(items: Iterable[tuple[str, Any]]) -> dict[str, list[Any]]:
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
