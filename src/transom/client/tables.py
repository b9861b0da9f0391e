"""Tables: resources as the hub shows them to people, a row each, whatever their kind.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
Next on the data's way: the command line prints them.
"""

import msgspec

from transom.model.resources import JsonObject, Metadata


class Partial(msgspec.Struct, frozen=True):
    """What a row says of its resource: `PartialObjectMetadata`."""

    metadata: Metadata


class Row(msgspec.Struct, frozen=True):
    """A resource as a row of a table: a text for each column, and whose it is."""

    cells: list[str]
    object: Partial


class Table(msgspec.Struct, frozen=True, rename="camel"):
    """Resources as the hub shows them to people. Of a watch only the first has `columns`."""

    metadata: JsonObject
    rows: list[Row]
    column_definitions: list[JsonObject] = []

    @property
    def columns(self) -> list[str]:
        """The titles of the columns."""
        return [str(column["name"]) for column in self.column_definitions]

    @property
    def revision(self) -> str:
        """The revision to watch from."""
        return str(self.metadata["resourceVersion"])


def read_table(body: bytes) -> Table:
    """The table in an answer of the hub."""
    return msgspec.json.decode(body, type=Table)
