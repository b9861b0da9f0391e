"""Configuration: frozen, typed, read from one TOML file, and checked as a whole.

Every mistake is reported at once, each with its path, so that nobody mends a file one error at a time.
"""

import tomllib
from pathlib import Path
from typing import Any, TypeVar, cast

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
    return _placed(config, path.resolve().parent)


def _placed(config: C, folder: Path) -> C:
    """`config` with its relative paths, and those of the configurations in it, beginning at `folder`."""
    changed: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Path):
            changed[name] = folder / value  # joining an absolute path leaves it as it is
        elif isinstance(value, Config):
            changed[name] = _placed(value, folder)
        elif isinstance(value, list):
            parts = cast("list[Any]", value)
            changed[name] = [_placed(each, folder) if isinstance(each, Config) else each for each in parts]
    return config.model_copy(update=changed)
