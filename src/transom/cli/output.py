"""Tables, JSON and YAML: how the verbs print."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from transom.runtime.clock import SystemClock

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60))


def aligned(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Rows as lines whose columns begin below each other, at least `widths` wide."""
    rows = [[harmless(cell) for cell in row] for row in rows]
    columns = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    columns = [max(pair) for pair in zip(columns, widths or [0] * len(columns), strict=True)]
    return [
        "   ".join(cell.ljust(width) for cell, width in zip(row, columns, strict=True)).rstrip()
        for row in rows
    ]


def harmless(text: str) -> str:
    """`text` with what a terminal would act on written out: it may come from anyone's app."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def echo_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    for line in aligned([head, *rows]):
        click.echo(line)


def echo_json(value: Any) -> None:
    """Print a value as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def echo_yaml(value: Any) -> None:
    """Print a value as YAML."""
    click.echo(as_yaml(value), nl=False)


def as_yaml(value: Any) -> str:
    """A value as YAML, its keys in the order they have."""
    import yaml  # noqa: PLC0415  # slow to load, and most output is a table

    return yaml.safe_dump(msgspec.to_builtins(value), sort_keys=False, allow_unicode=True)


def age(timestamp: str | None) -> str:
    """How long ago a time (RFC 3339) was, in the largest unit that fits: 12s, 3m, 2h, 5d."""
    if not timestamp:
        return "-"
    return span(SystemClock().wall() - datetime.fromisoformat(timestamp).timestamp())


def span(seconds: float) -> str:
    """A length of time in the largest unit that fits."""
    whole = max(0, int(seconds))
    for unit, length in _UNITS:
        if whole >= length:
            return f"{whole // length}{unit}"
    return f"{whole}s"
