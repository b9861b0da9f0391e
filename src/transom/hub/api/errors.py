"""From errors to HTTP answers, in one table: `kind: Status` objects as the Kubernetes API gives them.

Everything an answer of the API may say about a failure is decided here; what is not in the table is a fault
of ours and says nothing of the inside. Next on the data's way: `paths` finds out what was asked.
https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from transom.model.errors import (
    ConflictError,
    ExistsError,
    ExpiredError,
    FencedError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    StorageFullError,
    TransomError,
    UnauthorizedError,
    UnreachableError,
)
from transom.model.names import spoken
from transom.model.resources import JsonObject, to_json

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
}

_RETRY_AFTER_SECONDS = "1"


class RefusedError(Exception):
    """A request that is wrong as HTTP, whatever it is about: 400, 404, 405, 413 or 415."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


def status_of(error: Exception) -> JsonObject:
    """The Status that answers `error`."""
    if isinstance(error, RefusedError):
        return failure(error.code, _REASONS[error.code], str(error))
    if isinstance(error, HTTPException):
        return failure(error.status_code, _REASONS.get(error.status_code, "BadRequest"), error.detail)
    for kind, code, reason in _ANSWERS:
        if isinstance(error, kind):
            return failure(code, reason, spoken(str(error)), _causes(error))
    return failure(500, "InternalError", "the hub failed to answer; its log says why")


def failure(code: int, reason: str, message: str, causes: list[JsonObject] | None = None) -> JsonObject:
    """A Status of a failure."""
    status: JsonObject = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    if causes:
        status["details"] = {"causes": causes}
    return status


def _causes(error: TransomError) -> list[JsonObject]:
    if not isinstance(error, InvalidError):
        return []
    return [{"field": problem.path, "message": spoken(problem.message)} for problem in error.problems]


def answer(body: Any, code: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(to_json(body), code, headers=headers, media_type=JSON)


def refuse(_request: Request, error: Exception) -> Response:
    """The response to a request that failed with `error`."""
    status = status_of(error)
    headers = {"Retry-After": _RETRY_AFTER_SECONDS} if status["code"] in (503, 507) else {}
    if isinstance(error, HTTPException):
        headers.update(error.headers or {})
    return answer(status, status["code"], headers)
