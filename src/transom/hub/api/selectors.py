"""What a list, a watch or a deletion of many selects: by labels, and by fields.

Pure: from the text of a query to a `Selector`. What cannot be read is refused, never ignored: a selector that
selected more than was meant could delete it. Next on the data's way: `lists` and `watch` ask it about every
resource; a name or a namespace that is asked for is looked up by the store.
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel

from transom.hub.api.errors import RefusedError
from transom.model.kinds import Kind
from transom.model.names import is_label_key, is_label_value
from transom.model.resources import Resource

_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)\s*")
_EQUAL = ("=", "==")
_OPERATORS = frozenset({"=", "==", "!=", "in", "notin", ">", "<"})
_SIGNS = frozenset({"=", "==", "!=", "!", ",", "(", ")", "<", ">"})

Labels = dict[str, str]
LabelTest = Callable[[Labels], bool]


@dataclass(frozen=True)
class FieldTest:
    """A field at `path` (from the object's root) that must, or must not, have a value."""

    path: tuple[str, ...]
    value: str
    equal: bool

    def __call__(self, resource: Resource) -> bool:
        """Whether the field of `resource` is as asked for; one that is absent counts as empty."""
        return (_said(resource, self.path) == self.value) is self.equal


@dataclass(frozen=True)
class Selector:
    """What is selected of a kind. `name` and `namespace` are those that are asked for; empty for any."""

    labels: tuple[LabelTest, ...] = ()
    fields: tuple[FieldTest, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is asked for at all."""
        return bool(self.labels or self.fields)

    @property
    def name(self) -> str | None:
        """The one name that can be selected; None for any."""
        return self._only(("metadata", "name"))

    @property
    def namespace(self) -> str | None:
        """The one namespace that can be selected; None for any."""
        return self._only(("metadata", "namespace"))

    def _only(self, path: tuple[str, ...]) -> str | None:
        return next((test.value for test in self.fields if test.path == path and test.equal), None)

    def __call__(self, resource: Resource) -> bool:
        """Whether `resource` is selected."""
        labels = resource.metadata.labels
        return all(test(labels) for test in self.labels) and all(test(resource) for test in self.fields)


def selector_of(kind: Kind, labels: str, fields: str) -> Selector:
    """The selector that `labelSelector` and `fieldSelector` mean for `kind`. Raises `RefusedError`."""
    return Selector(tuple(_label_tests(labels)), tuple(_field_tests(kind, fields)))


# --- labels --------------------------------------------------------------------------------------------


def _label_tests(text: str) -> Iterator[LabelTest]:
    tokens = _Tokens(text)
    while tokens.more():
        yield _label_test(tokens)
        if tokens.more():
            tokens.expect(",")
            if not tokens.more():
                raise tokens.wrong("a requirement is missing after the last comma")


def _label_test(tokens: "_Tokens") -> LabelTest:
    if tokens.peek() == "!":
        tokens.next()
        absent = _label(tokens)
        return lambda labels: absent not in labels
    key = _label(tokens)
    operator = tokens.peek()
    if operator in ("", ","):
        return lambda labels: key in labels
    if operator not in _OPERATORS:
        raise tokens.wrong(f"{operator!r} is none of =, ==, !=, in, notin, > and <")
    tokens.next()
    if operator in (">", "<"):
        return _comparing(tokens, key, operator, _value(tokens))
    values = frozenset(_values(tokens) if operator in ("in", "notin") else [_value(tokens)])
    if operator in ("notin", "!="):
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values


def _comparing(tokens: "_Tokens", key: str, operator: str, value: str) -> LabelTest:
    bound = _whole(value)
    if bound is None:
        raise tokens.wrong(f"{value!r} is no whole number, which {operator!r} needs")

    def compares(labels: Labels) -> bool:
        held = _whole(labels.get(key, ""))
        return held is not None and (held > bound if operator == ">" else held < bound)

    return compares


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII) else None


def _label(tokens: "_Tokens") -> str:
    key = tokens.next()
    if not is_label_key(key):
        raise tokens.wrong(f"{key!r} is not the key of a label" if key else "the key of a label is missing")
    return key


def _values(tokens: "_Tokens") -> Iterator[str]:
    tokens.expect("(")
    while True:
        yield _value(tokens)
        if tokens.peek() != ",":
            break
        tokens.next()
    tokens.expect(")")


def _value(tokens: "_Tokens") -> str:
    """The next value; it may be empty."""
    value = "" if tokens.peek() in ("", ",", ")") else tokens.next()
    if not is_label_value(value):
        raise tokens.wrong(f"{value!r} is not the value of a label")
    return value


class _Tokens:
    """The words and signs of a label selector, from the first to the last."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[str] = []
        at = 0
        while at < len(text.rstrip()):
            token = _TOKEN.match(text, at)
            if token is None:
                raise self.wrong(f"{text[at:]!r} cannot be read")
            self._found.append(token[1])
            at = token.end()
        self._next = 0

    def more(self) -> bool:
        return self._next < len(self._found)

    def peek(self) -> str:
        return self._found[self._next] if self.more() else ""

    def next(self) -> str:
        token = self.peek()
        self._next += 1
        return token

    def expect(self, sign: str) -> None:
        found = self.next()
        if found != sign:
            raise self.wrong(f"found {found!r}, expected: {sign!r}")

    def wrong(self, why: str) -> RefusedError:
        return RefusedError(400, f"unable to parse requirement: labelSelector {self._text!r}: {why}")


# --- fields --------------------------------------------------------------------------------------------


def _field_tests(kind: Kind, text: str) -> Iterator[FieldTest]:
    for part in _split(text):
        found = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)(.*)", part, re.DOTALL)
        if found is None:
            raise RefusedError(
                400, f"invalid field selector: {text!r}: {part!r} is not FIELD=VALUE or FIELD!=VALUE"
            )
        label, operator, value = found.groups()
        path = _path_of(kind, label)
        if path is None:
            raise RefusedError(400, f"field label not supported: {label}")
        yield FieldTest(path, _unescaped(text, value), operator in _EQUAL)


def _split(text: str) -> list[str]:
    r"""The terms between commas; one after a backslash (`\,`) is part of a value."""
    return [part for part in re.split(r"(?<!\\),", text) if part.strip()]


def _unescaped(text: str, value: str) -> str:
    """A value as it was meant: a backslash stands before a backslash, a comma and an equals sign."""
    if re.search(r"(?<!\\)(\\\\)*=", value) or re.search(r"(?<!\\)(\\\\)*\\([^\\,=]|$)", value):
        said = "a backslash, a comma and '=' in a value stand behind a backslash"
        raise RefusedError(400, f"invalid field selector: {text!r}: {said}")
    return re.sub(r"\\([\\,=])", r"\1", value)


def _path_of(kind: Kind, label: str) -> tuple[str, ...] | None:
    """Where a resource of `kind` holds what clients call `label`; None when there is no such field."""
    parts = tuple(label.split("."))
    if parts in (("metadata", "name"), ("metadata", "namespace")):
        return parts
    if kind.flat:
        return ("spec", *parts) if _is_scalar(kind.spec, parts) else None
    schema = {"spec": kind.spec, "status": kind.status}.get(parts[0])
    return parts if _is_scalar(schema, parts[1:]) else None


def _is_scalar(schema: Any, path: tuple[str, ...]) -> bool:
    """Whether a schema says that there is one value, and no object or list, at `path`."""
    for part in path:
        if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
            return False
        field = next((f for name, f in schema.model_fields.items() if part in (f.alias, name)), None)
        if field is None:
            return False
        schema = _only_type(field.annotation)
    return bool(path) and schema in (str, int, bool, float)


def _only_type(annotation: Any) -> Any:
    """The type that an annotation has beside None; text for one of some words."""
    if get_origin(annotation) in (Union, UnionType):
        types = [each for each in get_args(annotation) if each is not type(None)]
        return _only_type(types[0]) if len(types) == 1 else None
    return str if get_origin(annotation) is Literal else annotation


def _said(resource: Resource, path: tuple[str, ...]) -> str:
    if path[0] == "metadata":
        return resource.metadata.name if path[1] == "name" else resource.metadata.namespace
    value: Any = resource.spec if path[0] == "spec" else resource.status
    for part in path[1:]:
        value = cast("dict[str, Any]", value).get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
