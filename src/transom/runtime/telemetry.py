"""Logs as JSON lines on standard error, metrics for Prometheus. No secret reaches either.

Logs name events in plain words and carry the facts as fields. A field whose name says that it is a secret
is blanked here, whoever wrote it.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, generate_latest

_SECRET_WORDS = ("authorization", "password", "secret", "token", "api_key", "link_key")

_TOLD_MAX, _TELL_EVERY = 20, 1000

metrics = CollectorRegistry()
"""The metrics of this process. Named after Prometheus' conventions, prefix `transom_`, units in the name."""


def get_logger(name: str) -> Any:
    """A logger for one module."""
    return structlog.get_logger(module=name.removeprefix("transom."))


def configure_logging(part: str, level: str = "info") -> None:
    """Send logs to standard error as JSON lines; `part` ("hub", "region/eu") is on each."""
    structlog.contextvars.bind_contextvars(part=part)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            blank_secrets,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def blank_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every field that is named like a secret."""
    for name in event:
        if any(word in name.lower() for word in _SECRET_WORDS):
            event[name] = "[secret]"
    return event


def is_told(count: int) -> bool:
    """Whether the `count`th event of its kind is worth a line: of many alike come some, not a flood."""
    return count <= _TOLD_MAX or count % _TELL_EVERY == 0


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(metrics)
