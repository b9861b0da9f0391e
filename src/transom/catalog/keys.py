"""What the kinds of keys share: what a key is but for the key itself, which is shown where it is made."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from transom.model.errors import Problem
from transom.model.resources import Resource

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
"""A key's SHA-256 in hexadecimal."""


def check_update(held: Resource, wanted: Resource) -> Iterator[Problem]:
    """What may not become of a key: another one, or good again."""
    if wanted.spec["hash"] != held.spec.get("hash"):
        yield Problem("spec.hash", "cannot be changed; make another key and revoke this one")
    if held.spec.get("revoked") and not wanted.spec["revoked"]:
        yield Problem("spec.revoked", "a revoked key stays revoked; make another key")


def state(key: Resource) -> str:
    """In one word, for people."""
    if key.deleting:
        return "Terminating"
    return "Revoked" if key.spec.get("revoked") else "Issued"
