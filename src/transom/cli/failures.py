"""From errors to what people read and to exit codes: the command line's one table."""

from collections.abc import Iterable
from typing import cast

import click

from transom.cli.exit_codes import REFUSED, UNREACHABLE, USAGE
from transom.client.hub import ApiError
from transom.model.errors import InvalidError, NewerDataError, TransomError, UnreachableError

_CODES: tuple[tuple[type[TransomError], int], ...] = (
    (UnreachableError, UNREACHABLE),
    (InvalidError, USAGE),
    (NewerDataError, USAGE),
)


def tell(error: Exception) -> int | None:
    """Print what went wrong, each mistake on its line. Returns the exit code; None for a fault of ours."""
    errors = list(_leaves(error))
    codes = [_code(each) for each in errors]
    if None in codes:
        return None
    for each in errors:
        tell_one(each)
    return codes[0]


def tell_one(error: Exception, about: str = "") -> None:
    """Print one error and its mistakes, aligned by their paths."""
    head = f"error: {about}: " if about else "error: "
    mistakes = mistakes_of(error)
    if not mistakes:
        click.echo(head + str(error), err=True)
        return
    counted = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "1 mistake"
    what = error.what if isinstance(error, InvalidError) else "refused"
    click.echo(f"{head}{what}, {counted}", err=True)
    width = max(len(path) for path, _ in mistakes)
    for path, message in mistakes:
        click.echo(f"  {path:<{width}}  {message}" if width else f"  {message}", err=True)


def mistakes_of(error: Exception) -> list[tuple[str, str]]:
    """The paths of what is wrong and what is wrong there; none when the error is about the whole."""
    if isinstance(error, ApiError):
        return error.causes
    if isinstance(error, InvalidError):
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def _code(error: Exception) -> int | None:
    if not isinstance(error, TransomError):
        return None
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)


def _leaves(error: Exception) -> Iterable[Exception]:
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        for inner in group.exceptions:
            yield from _leaves(inner)
    else:
        yield error
