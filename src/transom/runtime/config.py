"""Configuration: frozen, typed, read from one TOML file, and checked as a whole.

Every mistake is reported at once, each with its path, so that nobody mends a file one error at a time.
"""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from transom.model.errors import InvalidError, Problem
from transom.model.kinds import problems_of
from transom.model.names import LABEL_RULE, is_label


class Config(BaseModel):
    """Base of every configuration: unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def label(name: str) -> str:
    """`name`, if it is a DNS label; for a field. Raises `ValueError`, as configuration wants it."""
    if not is_label(name):
        raise ValueError(f"{name!r} {LABEL_RULE}")
    return name


C = TypeVar("C", bound=Config)


def load(path: Path, schema: type[C]) -> C:
    """Read `path` as `schema`; relative paths in it begin at the file's folder, and are absolute here.

    Raises `InvalidError` that lists every mistake in the file.
    """
    what = f"configuration {path}"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidError(what, [Problem("", "there is no such file")]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidError(what, [Problem("", f"cannot be read as TOML: {error}")]) from None
    try:
        config = schema.model_validate(data)
    except ValidationError as error:
        raise InvalidError(what, problems_of(error)) from None
    folder = path.resolve().parent
    # Joining an absolute path leaves it as it is.
    paths = {name: folder / value for name, value in config if isinstance(value, Path)}
    return config.model_copy(update=paths)
