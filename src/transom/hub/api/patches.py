"""Patches: how a client says what to change of an object without sending it whole.

Pure: from an object and a patch to the object as it shall be; what is patched is never changed in place. A
JSON patch (RFC 6902) is a list of operations at paths (RFC 6901), all of which are done or none; a JSON merge
patch (RFC 7396) is `hub.changes.merge`. Next on the data's way: `resources` checks what came out.
"""

import copy
from collections.abc import Callable
from typing import Any, cast

from transom.model.documents import check_plain
from transom.model.errors import InvalidError, Problem
from transom.model.resources import to_json

OPERATIONS_MAX = 1000
COPIED_BYTES_MAX = 3 * 1024 * 1024
"""What the copies of one patch may amount to: a few lines of them could double an object again and again."""

_ARRAY_INDEX_DIGITS_MAX = 9
_NEEDED = {
    "add": ("value",),
    "replace": ("value",),
    "test": ("value",),
    "remove": (),
    "move": ("from",),
    "copy": ("from",),
}


class UnreadablePatchError(Exception):
    """It is not a JSON patch at all, whatever it is applied to."""


class TooManyOperationsError(Exception):
    """It is a longer JSON patch than is done at once."""


def check_json_patch(patch: Any) -> list[dict[str, Any]]:
    """The operations of a JSON patch (RFC 6902, 4).

    Raises `UnreadablePatchError` and `TooManyOperationsError`.
    """
    if not isinstance(patch, list):
        raise UnreadablePatchError("a JSON patch is a list of operations: [{op, path, …}, …]")
    operations = cast("list[Any]", patch)
    if len(operations) > OPERATIONS_MAX:
        said = f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        raise TooManyOperationsError(f"Request entity too large: {said}")
    for number, operation in enumerate(operations):
        wrong = _wrong(operation)
        if wrong:
            raise UnreadablePatchError(f"operation {number} of the patch: {wrong}")
    return cast("list[dict[str, Any]]", operations)


def json_patched(target: Any, operations: list[dict[str, Any]]) -> Any:
    """`target` after all `operations`. Raises `InvalidError` naming the first that cannot be done."""
    patching = _Patching(target)
    for number, operation in enumerate(operations):
        try:
            patching.do(operation)
        except _CannotError as error:
            what = f"operation {number} of the patch ({operation['op']} {operation['path']!r})"
            raise InvalidError("the patched object", [Problem("", f"{what}: {error}")]) from None
    return patching.document


class _Patching:
    """A document on its way through a patch."""

    def __init__(self, target: Any) -> None:
        self.document = copy.deepcopy(target)
        self._copied_bytes = 0

    def do(self, operation: dict[str, Any]) -> None:
        """One operation. Raises `_CannotError`."""
        path, kind = _tokens(operation["path"]), operation["op"]
        if kind == "test":
            if not same(_at(self.document, path), operation["value"]):
                raise _CannotError("testing the value failed")
        elif kind == "remove":
            self._edit(path, _remove)
        elif kind == "move":
            self._move(_tokens(operation["from"]), path)
        elif kind == "copy":
            value = _at(self.document, _tokens(operation["from"]))
            # A few lines could nest an object in itself again and again, deeper than can be written out.
            check_plain(value, "what the patch copies")
            self._copied_bytes += len(to_json(value))
            if self._copied_bytes > COPIED_BYTES_MAX:
                raise _CannotError(f"the patch copies more than {COPIED_BYTES_MAX // 1024**2} MiB")
            self._edit(path, _setting("add", copy.deepcopy(value)))
        else:
            self._edit(path, _setting(kind, copy.deepcopy(operation["value"])))

    def _move(self, start: list[str], path: list[str]) -> None:
        if len(path) > len(start) and path[: len(start)] == start:
            raise _CannotError("nothing can be moved into a part of itself")
        value = _at(self.document, start)
        if path != start:
            self._edit(start, _remove)
            self._edit(path, _setting("add", value))

    def _edit(self, path: list[str], edit: "Edit") -> None:
        """Do `edit` on what holds the last part of `path`."""
        if path:
            edit(_at(self.document, path[:-1]), path[-1])
        else:
            root = {"": self.document}
            edit(root, "")
            self.document = root.get("")


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal (RFC 6902, 4.6): numbers by value, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(one, list) and isinstance(other, list):
        first, second = cast("list[Any]", one), cast("list[Any]", other)
        return len(first) == len(second) and all(map(same, first, second))
    return one == other


class _CannotError(Exception):
    """An operation cannot be done on this document."""


def _wrong(operation: Any) -> str:
    if not isinstance(operation, dict):
        return "is not an object"
    said = cast("dict[str, Any]", operation)
    kind = said.get("op")
    if not isinstance(kind, str) or kind not in _NEEDED:
        return f"op is {kind!r}, none of {', '.join(sorted(_NEEDED))}"
    for field in ("path", *_NEEDED[kind]):
        if field not in said:
            return f"{field!r} is missing"
        if field != "value" and not _is_pointer(said[field]):
            return f"{field} is {said[field]!r}, which is no JSON pointer (RFC 6901)"
    return ""


def _is_pointer(text: Any) -> bool:
    """Whether it is one: empty, or beginning with a slash, each "~" followed by 0 or 1."""
    if not isinstance(text, str) or not (text == "" or text.startswith("/")):
        return False
    return all(part[:1] in ("0", "1") for part in text.split("~")[1:])


def _tokens(pointer: str) -> list[str]:
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _at(document: Any, path: list[str]) -> Any:
    for token in path:
        document = _child(document, token)
    return document


def _child(document: Any, token: str) -> Any:
    if isinstance(document, list):
        items = cast("list[Any]", document)
        return items[_index(token, len(items) - 1)]
    if isinstance(document, dict) and token in document:
        return cast("dict[str, Any]", document)[token]
    raise _CannotError(f"there is no {token!r}")


def _index(token: str, most: int) -> int:
    """A place in a list: 0, or digits that do not begin with one, up to `most`."""
    well_formed = token.isascii() and token.isdigit() and (token == "0" or not token.startswith("0"))  # noqa: S105
    if not well_formed or len(token) > _ARRAY_INDEX_DIGITS_MAX:
        raise _CannotError(f"{token!r} is no place in a list")
    if int(token) > most:
        raise _CannotError(f"the list has no place {token}")
    return int(token)


Edit = Callable[[Any, str], None]


def _remove(holder: Any, token: str) -> None:
    _child(holder, token)
    del holder[_index(token, len(cast("list[Any]", holder)) - 1) if isinstance(holder, list) else token]


def _setting(kind: str, value: Any) -> Edit:
    def edit(holder: Any, token: str) -> None:
        if kind == "replace":
            _child(holder, token)
        if isinstance(holder, dict):
            holder[token] = value
        elif not isinstance(holder, list):
            raise _CannotError(f"{token!r} would be part of a value that has no parts")
        elif kind == "replace":
            holder[int(token)] = value
        else:
            items = cast("list[Any]", holder)
            items.insert(len(items) if token == "-" else _index(token, len(items)), value)  # noqa: S105

    return edit
