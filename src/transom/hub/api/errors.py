"""From errors to HTTP answers, in one table: `kind: Status` objects as the Kubernetes API gives them.

Everything an answer of the API may say about a failure is decided here, in the words of the Kubernetes API,
which clients match on; what is not in the table is a fault of ours and says nothing of the inside.
Next on the data's way: `paths` finds out what was asked.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from transom.hub.fields.managers import FieldConflictError
from transom.hub.fields.sets import spoken as field_path
from transom.model.errors import (
    ConflictError,
    ExistsError,
    ExpiredError,
    FencedError,
    ForbiddenError,
    InvalidError,
    ModifiedError,
    NotFoundError,
    NotReachedError,
    Problem,
    StorageFullError,
    TransomError,
    UnauthorizedError,
    UnreachableError,
)
from transom.model.kinds import Kind
from transom.model.names import spoken
from transom.model.resources import JsonObject, to_json
from transom.runtime.http import Scope

JSON = "application/json"

_ANSWERS: tuple[tuple[type[TransomError], int, str], ...] = (
    (InvalidError, 422, "Invalid"),
    (UnauthorizedError, 401, "Unauthorized"),
    (ForbiddenError, 403, "Forbidden"),
    (NotFoundError, 404, "NotFound"),
    (ExistsError, 409, "AlreadyExists"),
    (ConflictError, 409, "Conflict"),
    (ExpiredError, 410, "Expired"),
    (StorageFullError, 507, "InsufficientStorage"),
    (FencedError, 503, "ServiceUnavailable"),
    (UnreachableError, 503, "ServiceUnavailable"),
)

_REASONS = {
    400: "BadRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    504: "Timeout",
}

_SAID = {
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
}
"""What a path or a method that is not there is answered with."""

_RETRY_AFTER_SECONDS = 1
_RETRIED = frozenset({503, 504, 507})

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_PROBLEMS = {
    "Required": "Required value",
    "NotSupported": "Unsupported value",
    "Forbidden": "Forbidden",
    "Duplicate": "Duplicate value",
    "TooLong": "Too long",
    "TooMany": "Too many",
    "Invalid": "Invalid value",
    "TypeInvalid": "Invalid value",
}
"""How each sort of problem begins in the words of the Kubernetes API."""

_FORBIDDEN = " is forbidden: "
_SUBJECT = "transom.subject"


class Subject(msgspec.Struct, frozen=True):
    """What a request is about, as far as it is known: said in the details of every failure."""

    kind: Kind
    name: str = ""


def remember_subject(scope: Scope, subject: Subject) -> None:
    """Keep for the rest of this request what it is about."""
    scope[_SUBJECT] = subject


class RefusedError(Exception):
    """A request that is wrong as HTTP, whatever it is about: 400, 404, 405, 413, 415 or 422."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


class OptionsError(Exception):
    """Words of a query that do not go together: 422, as the Kubernetes API answers; `kind` is that of the
    options ("ListOptions").
    """

    def __init__(self, kind: str, problems: list[Problem]) -> None:
        self.kind = kind
        self.problems = problems
        super().__init__(f'{kind}.meta.k8s.io "" is invalid: {_joined(problems)}')


class TooSlowError(Exception):
    """The request was not done in the time that it gave itself; a write may have happened: 504."""


REFUSALS = (RefusedError, OptionsError, TooSlowError)
"""What is wrong with a request before anybody else is asked."""


class ContinueExpiredError(ExpiredError):
    """The revision of a list is forgotten; `token` goes on with what there is now."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(
            "The provided continue parameter is too old to display a consistent list result. You can start a "
            "new list without the continue parameter, or use the continue token in this response to retrieve "
            "the remainder of the results. Continuing with the provided token results in an inconsistent "
            "list - objects that were created, modified, or deleted between the time the first chunk was "
            "returned and now may show up in the list."
        )


def status_of(error: Exception, subject: Subject | None = None) -> JsonObject:
    """The Status that answers `error`."""
    if isinstance(error, NotReachedError):
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        details = {"causes": [cause], "retryAfterSeconds": _RETRY_AFTER_SECONDS}
        return failure(504, "Timeout", str(error), details)
    if isinstance(error, FieldConflictError):
        return failure(409, "Conflict", str(error), {"causes": _field_causes(error)})
    for kind, code, reason in _ANSWERS:
        if isinstance(error, kind):
            details = _details(error, subject)
            if code in _RETRIED:
                details["retryAfterSeconds"] = _RETRY_AFTER_SECONDS
            return failure(code, reason, spoken(_message(error, subject)), details, _metadata(error))
    return _of_request(error) or failure(500, "InternalError", "the hub failed to answer; its log says why")


def _of_request(error: Exception) -> JsonObject | None:
    """The Status for what is wrong with a request as such."""
    if isinstance(error, RefusedError):
        return failure(error.code, _REASONS[error.code], str(error))
    if isinstance(error, OptionsError):
        details = {"group": "meta.k8s.io", "kind": error.kind, "causes": _causes(error.problems)}
        return failure(422, "Invalid", str(error), details)
    if isinstance(error, TooSlowError):
        return failure(504, "Timeout", str(error), {"retryAfterSeconds": _RETRY_AFTER_SECONDS})
    if isinstance(error, HTTPException):
        said = _SAID.get(error.status_code, error.detail)
        return failure(error.status_code, _REASONS.get(error.status_code, "BadRequest"), said)
    return None


def failure(
    code: int,
    reason: str,
    message: str,
    details: JsonObject | None = None,
    metadata: JsonObject | None = None,
) -> JsonObject:
    """A Status of a failure."""
    status: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata or {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    if details:
        status["details"] = details
    return status


def _message(error: TransomError, subject: Subject | None) -> str:
    """What is wrong, in the words that the Kubernetes API has for it."""
    if subject is None:
        return str(error)
    if isinstance(error, InvalidError):
        what = f"{subject.kind.name}.{subject.kind.group}".rstrip(".")
        return f'{what} "{subject.name}" is invalid: {_joined(error.problems)}'
    named = f'{subject.kind.qualified} "{subject.name}"' if subject.name else subject.kind.qualified
    said = str(error)
    if isinstance(error, NotFoundError) and subject.name and said.endswith("does not exist"):
        said = f"{named} not found"
    elif isinstance(error, ExistsError):
        said = f"{named} already exists"
    elif isinstance(error, ConflictError):
        why = _MODIFIED if isinstance(error, ModifiedError) else said
        said = f"Operation cannot be fulfilled on {named}: {why}"
    elif isinstance(error, ForbiddenError) and _FORBIDDEN not in said:
        said = f"{named}{_FORBIDDEN}{said}"
    return said


def _details(error: TransomError, subject: Subject | None) -> JsonObject:
    """What the failure is about. An invalid object is named by its kind, all else by its plural."""
    details: JsonObject = {}
    if subject is not None and not isinstance(error, ExpiredError):
        invalid = isinstance(error, InvalidError)
        details = {
            "name": subject.name,
            "group": subject.kind.group,
            "kind": subject.kind.name if invalid else subject.kind.plural,
        }
    if isinstance(error, InvalidError):
        details["causes"] = _causes(error.problems)
    return {name: value for name, value in details.items() if value}


def _metadata(error: TransomError) -> JsonObject:
    return {"continue": error.token} if isinstance(error, ContinueExpiredError) else {}


def _causes(problems: Iterable[Problem]) -> list[JsonObject]:
    """Each problem; one that is of the whole object has no field."""
    return [
        {"reason": f"FieldValue{problem.sort}", "message": _told(problem)}
        | ({"field": problem.path} if problem.path else {})
        for problem in problems
    ]


def _field_causes(error: FieldConflictError) -> list[JsonObject]:
    return [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {conflict.manager}",
            "field": field_path(conflict.path),
        }
        for conflict in error.conflicts
    ]


def _told(problem: Problem) -> str:
    return f"{_PROBLEMS[problem.sort]}: {spoken(problem.message)}"


def _joined(problems: Sequence[Problem]) -> str:
    told = [f"{problem.path}: {_told(problem)}".removeprefix(": ") for problem in problems]
    return told[0] if len(told) == 1 else f"[{', '.join(told)}]"


def answer(body: Any, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(to_json(body), code, headers=headers, media_type=JSON)


def refuse(request: Request, error: Exception) -> Response:
    """The response to a request that failed with `error`."""
    status = status_of(error, request.scope.get(_SUBJECT))
    headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)} if status["code"] in _RETRIED else {}
    if isinstance(error, HTTPException):
        headers.update(error.headers or {})
    return answer(status, status["code"], headers)
