"""Which representation of an answer a client takes, by its `Accept` header.

Pure. A clause is a media type with parameters, some of them Kubernetes' own: `as`, `g` and `v` name a kind to
which the answer is to be converted (a Table, metadata alone, all of discovery at once). The first clause that
can be given decides, those of a greater `q` first; who takes nothing that there is gets 406.
https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
(RFC 9110, 12.5.1.) Next on the data's way: `rendering` and `discovery` give what is chosen here.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from transom.hub.api.errors import JSON, RefusedError

_CLAUSES_MAX = 64


class Form(NamedTuple):
    """A kind that an answer is converted to; all empty for the answer as it is."""

    group: str = ""
    version: str = ""
    kind: str = ""

    @property
    def parameters(self) -> str:
        """As the media type of an answer says it."""
        return f";g={self.group};v={self.version};as={self.kind}" if self.kind else ""


AS_IT_IS = Form()


@dataclass(frozen=True)
class Clause:
    """One media type of an `Accept` header."""

    media_type: str
    parameters: Mapping[str, str]
    quality: float

    @property
    def form(self) -> Form:
        """What it asks to convert the answer to."""
        wanted = self.parameters
        return Form(wanted.get("g", ""), wanted.get("v", ""), wanted.get("as", ""))


def form_for(accept: str, forms: Collection[Form], media_type: str = JSON) -> Form:
    """Which of `forms` to give, as `media_type`, to who sent `accept`.

    No header takes anything. Raises `RefusedError` (406) when nothing that there is will do.
    """
    if not accept.strip():
        return AS_IT_IS
    for clause in _clauses(accept):
        if _is_of(media_type, clause.media_type) and clause.form in forms:
            return clause.form
    given = ", ".join(sorted(f"{media_type}{form.parameters}" for form in forms))
    raise RefusedError(406, f"only the following media types are accepted: {given}")


def media_type_for(accept: str, media_types: Collection[str]) -> str:
    """Which of `media_types`, the preferred one first, to give to who sent `accept`.

    Raises `RefusedError` (406).
    """
    for clause in _clauses(accept) if accept.strip() else ():
        found = next((given for given in media_types if _is_of(given, clause.media_type)), "")
        if found:
            return found
    if not accept.strip():
        return next(iter(media_types))
    raise RefusedError(406, f"only the following media types are accepted: {', '.join(media_types)}")


def _clauses(accept: str) -> list[Clause]:
    """The clauses that are acceptable at all, those of a greater `q` first, and else in their order."""
    found = [clause for clause in _parsed(accept) if clause.quality > 0]
    return sorted(found, key=lambda clause: -clause.quality)


def _parsed(accept: str) -> Iterator[Clause]:
    for text in accept.split(",", _CLAUSES_MAX)[:_CLAUSES_MAX]:
        media_type, *rest = (part.strip() for part in text.split(";"))
        parameters: dict[str, str] = {}
        for part in rest:
            name, _, value = part.partition("=")
            parameters[name.strip().lower()] = value.strip().strip('"')
        yield Clause(media_type.lower(), parameters, _quality(parameters.pop("q", "1")))


def _quality(text: str) -> float:
    """A `q` from 0 to 1; one that is no number asks for nothing."""
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _is_of(given: str, wanted: str) -> bool:
    return wanted in (given, "*/*", f"{given.partition('/')[0]}/*")
