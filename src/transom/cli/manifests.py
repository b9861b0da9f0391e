"""The documents in the files that people apply: found, read, and told apart by number."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transom.catalog.kinds import shipped
from transom.model.documents import read_json, read_yaml, split_documents
from transom.model.errors import InvalidError, NotFoundError, Problem
from transom.model.kinds import Kind
from transom.model.resources import JsonObject


@dataclass(frozen=True)
class Manifest:
    """One document: what it declares, and where it stands."""

    place: str
    kind: Kind
    name: str
    tenant: str
    body: JsonObject


def read_manifests(files: tuple[str, ...]) -> tuple[list[Manifest], list[InvalidError]]:
    """Every document of `files` ("-" is standard input), and every one that cannot be read or used."""
    manifests: list[Manifest] = []
    errors: list[InvalidError] = []
    for file in files:
        for number, (line, text) in enumerate(_documents(file), 1):
            place = f"{'standard input' if file == '-' else file} document {number}"
            try:
                manifests.append(_manifest(place, _value(text, place, line)))
            except InvalidError as error:
                errors.append(error)
    return manifests, errors


def _documents(file: str) -> list[tuple[int, str]]:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode()
    except OSError as error:
        raise InvalidError(f"file {file}", [Problem("", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        raise InvalidError(f"file {file}", [Problem("", f"is not UTF-8 (byte {error.start})")]) from None
    documents = split_documents(text)
    if not documents:
        raise InvalidError(f"file {file}", [Problem("", "declares nothing")])
    return documents


def _value(text: str, place: str, line: int) -> Any:
    # What looks like JSON is read as JSON, whose texts and numbers YAML reads a little differently.
    if text.lstrip().startswith("{"):
        try:
            return read_json(text, place)
        except InvalidError as error:
            with contextlib.suppress(InvalidError):  # YAML has objects in braces, too
                return read_yaml(text, place, line)
            raise error from None
    return read_yaml(text, place, line)


def _manifest(place: str, value: Any) -> Manifest:
    if not isinstance(value, dict):
        raise InvalidError(place, [Problem("", "is not an object with kind, metadata and spec")])
    body = cast("JsonObject", value)
    given = body.get("metadata")
    metadata = cast("JsonObject", given) if isinstance(given, dict) else {}
    problems: list[Problem] = []
    kind = _kind(body.get("kind"), problems)
    name, tenant = metadata.get("name"), metadata.get("namespace", "")
    if not isinstance(name, str) or not name:
        problems.append(Problem("metadata.name", "is missing or not text"))
    if not isinstance(tenant, str):
        problems.append(Problem("metadata.namespace", "is not text"))
    if problems or kind is None:
        raise InvalidError(place, problems)
    return Manifest(place, kind, str(name), tenant, body)


def _kind(name: Any, problems: list[Problem]) -> Kind | None:
    try:
        return shipped()[str(name)]
    except NotFoundError as error:
        problems.append(Problem("kind", "is missing" if name is None else str(error)))
        return None
