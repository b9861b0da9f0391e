"""Names that people and programs give things, and the keys made of them."""

import re
from typing import NamedTuple, Self

from transom.model.errors import InvalidError, Problem

LABEL_CHARACTERS_MAX = 63
SUBDOMAIN_CHARACTERS_MAX = 253
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

_NO_NAMESPACE = re.compile(r"\b([A-Z][A-Za-z]*)//(?=[a-z0-9])")

LABEL_RULE = (
    "must be a DNS label: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)
SUBDOMAIN_RULE = "must be DNS labels joined by dots, at most 253 characters"


def is_label(text: str) -> bool:
    """Whether `text` is a DNS label (RFC 1123)."""
    return len(text) <= LABEL_CHARACTERS_MAX and _LABEL.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Whether `text` is one or more DNS labels joined by dots (RFC 1123)."""
    return len(text) <= SUBDOMAIN_CHARACTERS_MAX and all(is_label(part) for part in text.split("."))


LABEL_KEY_RULE = (
    "must be a name of at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or "
    "digit, with or without a DNS name and a slash before it, as example.com/name"
)
LABEL_VALUE_RULE = (
    "a valid label must be an empty string or consist of at most 63 letters, digits, '-', '_' or '.', and "
    "must start and end with a letter or digit"
)


def is_label_key(text: str) -> bool:
    """Whether `text` may name a label, an annotation or a finalizer: a word, or one after a DNS name.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
    """
    prefix, slash, name = text.rpartition("/")
    return _WORD.fullmatch(name) is not None and (not slash or is_subdomain(prefix))


def is_label_value(text: str) -> bool:
    """Whether `text` may be the value of a label."""
    return not text or _WORD.fullmatch(text) is not None


def spoken(text: str) -> str:
    """`text` for people: keys of kinds that have no namespace stand in it as Kind/name, not Kind//name."""
    return _NO_NAMESPACE.sub(r"\1/", text)


class Key(NamedTuple):
    """Which resource: its kind, its namespace (the tenant; empty for kinds that have none), its name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`Kind/namespace/name`: the key of its records, and how messages name it."""
        return f"{self.kind}/{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises `InvalidError`."""
        parts = text.split("/")
        if len(parts) != 3 or not parts[0] or not parts[2]:  # noqa: PLR2004
            raise InvalidError(f"resource key {text!r}", [Problem("", "expected Kind/namespace/name")])
        return cls(*parts)
