"""Times as people write them in specs: RFC 3339, the offset included, so that nobody has to guess a zone."""

import re
from datetime import datetime

_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
TIME_RULE = "must be a time with its offset (RFC 3339), as 2030-01-31T12:00:00Z"


def read_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; what is finer than a microsecond is left out.

    Raises `ValueError` with the rule.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} {TIME_RULE}")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError):  # of the right shape, but no such day, hour or second
        raise ValueError(f"{text!r} {TIME_RULE}") from None
