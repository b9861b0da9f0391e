"""How the store's tables came to be what they are, one step a file, run at the hub's start."""

from sqlalchemy import String

TEXT = String().with_variant(String(collation="C"), "postgresql")
"""Texts as the tables of `store_schema` have them; here, because a step stays as it was once released."""
