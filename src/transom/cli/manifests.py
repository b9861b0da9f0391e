"""The documents in the files that people apply: found, read, and told apart by number."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from transom.client.kinds import Kinds
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


class Document(NamedTuple):
    """The text of one document, where it stands, and at which line of its file it begins."""

    place: str
    line: int
    text: str


def read_documents(files: tuple[str, ...]) -> list[Document]:
    """Every document of `files` ("-" is standard input). Raises `InvalidError` about a file."""
    found: list[Document] = []
    for file in files:
        for number, (line, text) in enumerate(_documents(file), 1):
            place = f"{'standard input' if file == '-' else file} document {number}"
            found.append(Document(place, line, text))
    return found


def manifests_in(documents: list[Document], kinds: Kinds) -> tuple[list[Manifest], list[InvalidError]]:
    """What the documents declare, of what there is; and every one that cannot be read or used."""
    manifests: list[Manifest] = []
    errors: list[InvalidError] = []
    for place, line, text in documents:
        try:
            manifests.append(_manifest(place, _value(text, place, line), kinds))
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


def _manifest(place: str, value: Any, kinds: Kinds) -> Manifest:
    if not isinstance(value, dict):
        raise InvalidError(place, [Problem("", "is not an object with kind, metadata and spec")])
    body = cast("JsonObject", value)
    given = body.get("metadata")
    metadata = cast("JsonObject", given) if isinstance(given, dict) else {}
    problems: list[Problem] = []
    kind = _kind(body, kinds, problems)
    name, tenant = metadata.get("name"), metadata.get("namespace", "")
    if not isinstance(name, str) or not name:
        problems.append(Problem("metadata.name", "is missing or not text"))
    if not isinstance(tenant, str):
        problems.append(Problem("metadata.namespace", "is not text"))
    if problems or kind is None:
        raise InvalidError(place, problems)
    return Manifest(place, kind, str(name), tenant, body)


def _kind(body: JsonObject, kinds: Kinds, problems: list[Problem]) -> Kind | None:
    name, api_version = body.get("kind"), body.get("apiVersion", "")
    try:
        return kinds.declared(str(name), str(api_version))
    except NotFoundError as error:
        problems.append(Problem("kind", "is missing" if name is None else str(error)))
        return None
