"""Which request a change came from: W3C trace context, handed on from the API to the events of the log.

The trace of whoever asked is passed on as it is; who brings none begins one, so that a change can be followed
through every controller all the same. https://www.w3.org/TR/trace-context/
"""

import re
from contextvars import ContextVar

from transom.runtime.randomness import Randomness

TRACEPARENT = "traceparent"
"""The header's name, in HTTP and in a log."""

current: ContextVar[str] = ContextVar(TRACEPARENT, default="")
"""The trace of the request that is being handled; empty outside of any."""

_FORMAT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SPAN_CHARACTERS = 16


def valid(traceparent: str) -> str:
    """`traceparent` when it is one of version 00; empty otherwise, as the standard wants it."""
    return traceparent if _FORMAT.fullmatch(traceparent) else ""


def new_traceparent(randomness: Randomness) -> str:
    """The beginning of a trace that nobody samples."""
    trace, span = (randomness.uid().replace("-", "") for _ in range(2))
    return f"00-{trace}-{span[:_SPAN_CHARACTERS]}-00"
