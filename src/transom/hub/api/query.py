"""The words of a query, each read strictly: one that was meant to change the request must not be ignored.

So a word that is not known is refused, where Kubernetes' own API server would leave it out.
Next on the data's way: `options` says which words each verb takes.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from transom.hub.api.errors import JSON, RefusedError, TooSlowError

_NUMBER_DIGITS_MAX = 18
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

ALWAYS = ("pretty", "timeout")
"""What every verb takes: whether the answer is to be indented, and how long it may take (`30s`)."""

Query = dict[str, str]


def query_of(request: Request, *known: str) -> Query:
    """The query's words. Raises `RefusedError` for one that is not in `known`, or is said twice."""
    query: Query = {}
    for word, value in request.query_params.multi_items():
        if word not in known and word not in ALWAYS:
            said = f"known here: {', '.join((*known, *ALWAYS))}"
            raise RefusedError(400, f"unknown query parameter {word!r}; {said}")
        if query.setdefault(word, value) != value:
            raise RefusedError(400, f"query parameter {word!r} stands twice")
    return query


def number(query: Query, word: str) -> int | None:
    """The whole number that `word` gives; None when it is absent or empty."""
    text = query.get(word, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER_DIGITS_MAX):
        raise RefusedError(400, f"query parameter {word!r} must be a whole number, not {text!r}")
    return int(text)


def truth(query: Query, word: str) -> bool | None:
    """Whether `word` is "true" (or "1") or "false" (or "0"), in any case; None when it is absent."""
    text = query.get(word)
    if text is None:
        return None
    if text.lower() not in ("true", "1", "false", "0"):
        raise RefusedError(400, f"query parameter {word!r} must be true or false, not {text!r}")
    return text.lower() in ("true", "1")


def seconds(query: Query, word: str) -> float | None:
    """The time that `word` gives as Go writes it (`1m30s`), in seconds; None when it is absent or 0."""
    text = query.get(word, "")
    if text in ("", "0"):
        return None
    if not _DURATION.fullmatch(text):
        raise RefusedError(400, f"query parameter {word!r} must be a time as 30s or 1m30s, not {text!r}")
    return sum(float(count) * _UNITS[unit] for count, unit in _DURATION_PART.findall(text)) or None


async def in_time(request: Request, answering: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, if it is there in the `timeout` that the request gives itself; indented for `pretty=true`.

    Raises `TooSlowError`: what was asked for may have been done.
    """
    query = {word: request.query_params[word] for word in ALWAYS if word in request.query_params}
    limit, pretty = seconds(query, "timeout"), truth(query, "pretty")
    try:
        async with asyncio.timeout(limit):
            response = await answering()
    except TimeoutError:
        raise TooSlowError("Timeout: request did not complete within requested timeout") from None
    if pretty and response.media_type == JSON and not isinstance(response, StreamingResponse):
        indented = msgspec.json.format(bytes(response.body), indent=2) + b"\n"
        headers = {name: value for name, value in response.headers.items() if name != "content-length"}
        return Response(indented, response.status_code, headers=headers)
    return response
