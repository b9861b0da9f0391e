"""A version says which of two values of one key is newer, whoever looks and in whatever order they came.

Next on the data's way: `records`.
"""

import re
from typing import NamedTuple, Self

from transom.model.errors import InvalidError, Problem

_TEXT = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.(.+)", re.DOTALL)
"""18 digits: what every table can store in 64 bits. A larger number would stop whoever reads it."""


class Version(NamedTuple):
    """`(epoch, counter, origin)`, compared in that order.

    `epoch` is the writer's incarnation: larger after its storage was lost or restored. `counter` is its
    commit order. `origin` breaks ties between writers. Two records with one key, equal versions and
    different bytes mean two writers believe they are one: `VersionClashError`.
    """

    epoch: int
    counter: int
    origin: str

    def __str__(self) -> str:
        return f"{self.epoch}.{self.counter}.{self.origin}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises `InvalidError`."""
        found = _TEXT.fullmatch(text)
        if found is None:
            raise InvalidError(
                f"version {text!r}", [Problem("", "expected EPOCH.COUNTER.ORIGIN, as 3.17.hub")]
            )
        epoch, counter, origin = found.groups()
        return cls(int(epoch), int(counter), origin)
