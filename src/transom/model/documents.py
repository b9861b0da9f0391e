"""Reading JSON and YAML that people wrote, strictly: what could be misread is refused, never guessed.

Both give the same plain values: objects with text keys, lists, texts, numbers, true, false, null. Refused are
a key that stands twice, YAML anchors and aliases (a few lines of them can stand for gigabytes), custom tags,
deep nesting, numbers beyond 64 bits, infinities, and text that is not Unicode.

The hub reads bodies with this, the command line reads files. Next on the data's way: `kinds`.
"""

import json
import math
import re
from typing import Any, cast

import yaml

from transom.model.errors import InvalidError, Problem

DEPTH_MAX = 32
_INTEGER_MAX = 2**63

_yaml: Any = yaml
"""Its published types are too thin for what it takes."""
_DOCUMENT_MARK = re.compile(r"^---(?=\s|$)", re.MULTILINE)


def read_json(text: str, what: str = "the body") -> Any:
    """The value of a JSON text (RFC 8259). Raises `InvalidError`."""
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except RecursionError:
        raise _invalid(what, f"is nested deeper than {DEPTH_MAX} levels") from None
    except ValueError as error:
        raise _invalid(what, f"is not JSON: {error}") from None
    check_plain(value, what)
    return value


def read_yaml(text: str, what: str = "the body", first_line: int = 1) -> Any:
    """The value of a YAML text of one document; lines in messages count from `first_line`.

    Raises `InvalidError`.
    """
    try:
        _check_events(text)
        value = yaml.load(text, Loader=_StrictLoader)  # noqa: S506  # built on the safe loader
    except RecursionError:
        raise _invalid(what, f"is nested deeper than {DEPTH_MAX} levels") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" (line {mark.line + first_line}, column {mark.column + 1})" if mark else ""
        raise _invalid(what, f"is not YAML: {error.problem or error.context}{where}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _invalid(what, f"is not YAML: {error}") from None
    check_plain(value, what)
    return value


def split_documents(text: str) -> list[tuple[int, str]]:
    """The documents of a YAML stream, each with the number of its first line; empty ones are left out.

    Split before reading, so that a mistake in one document does not hide what is in the next.
    """
    starts = [0, *(mark.end() for mark in _DOCUMENT_MARK.finditer(text))]
    ends = [*(mark.start() for mark in _DOCUMENT_MARK.finditer(text)), len(text)]
    parts = (
        (text.count("\n", 0, start) + 1, text[start:end]) for start, end in zip(starts, ends, strict=True)
    )
    return [(line, part) for line, part in parts if _says_something(part)]


def _says_something(part: str) -> bool:
    lines = (line.strip() for line in part.splitlines())
    return any(line and not line.startswith("#") for line in lines)


class _StrictLoader(yaml.CSafeLoader):
    """YAML with JSON's types only."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # how the library is told
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":value"))]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


def _construct_mapping(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(
                problem=f"the key {key!r} is not text; quote it", problem_mark=key_node.start_mark
            )
        if key in mapping:
            raise yaml.MarkedYAMLError(
                problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


def _construct_other(_loader: Any, node: yaml.Node) -> Any:
    raise yaml.MarkedYAMLError(problem=f"the tag {node.tag!r} is not allowed", problem_mark=node.start_mark)


_CONSTRUCTORS: dict[str | None, Any] = {
    "tag:yaml.org,2002:map": _construct_mapping,
    **{
        f"tag:yaml.org,2002:{tag}": _construct_other
        for tag in ("binary", "set", "omap", "pairs", "timestamp")
    },
    None: _construct_other,
}
for _tag, _construct in _CONSTRUCTORS.items():
    _yaml.add_constructor(_tag, _construct, Loader=_StrictLoader)


def _check_events(text: str) -> None:
    """Refuse aliases, and nesting that would exhaust the stack, before anything is built."""
    depth = documents = 0
    for event in _yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not allowed; write it out", problem_mark=event.start_mark
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise yaml.MarkedYAMLError(problem="more than one document", problem_mark=event.start_mark)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} stands twice")
        found[name] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def check_plain(value: Any, what: str, depth: int = 0) -> None:
    """Raise `InvalidError` when a value is nested too deep, or holds what no document may hold."""
    if depth > DEPTH_MAX:
        raise _invalid(what, f"is nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict):
        for name, inner in cast("dict[str, Any]", value).items():
            _check_one(name, what)
            check_plain(inner, what, depth + 1)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            check_plain(inner, what, depth + 1)
    else:
        _check_one(value, what)


def _check_one(value: Any, what: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _invalid(what, f"holds text that is not Unicode: {value!r}") from None
    elif isinstance(value, int) and not -_INTEGER_MAX <= value < _INTEGER_MAX:
        raise _invalid(what, "holds a whole number beyond 64 bits")
    elif isinstance(value, float) and not math.isfinite(value):
        raise _invalid(what, "holds a number that is not finite")


def _invalid(what: str, message: str) -> InvalidError:
    return InvalidError(what, [Problem("", message)])
