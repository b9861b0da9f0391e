"""Where in the hub's API things are, and what its answers hold. Next on the data's way: `hub`."""

from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import msgspec

from transom.model.kinds import Kind
from transom.model.resources import JsonObject, Resource


def path_of(kind: Kind, tenant: str, name: str = "") -> str:
    """Where the resources of a kind are, of `tenant` or of all; or the one called `name`."""
    space = f"/namespaces/{quote(tenant, safe='')}" if kind.namespaced and tenant else ""
    root = f"/apis/{kind.group}" if kind.group else "/api"
    return f"{root}/{kind.version}{space}/{kind.plural}" + (f"/{quote(name, safe='')}" if name else "")


def read_resource(body: bytes) -> Resource:
    """The resource in an answer."""
    return msgspec.json.decode(body, type=Resource)


def read_items(body: bytes) -> list[JsonObject]:
    """The items of an answer that is a list."""
    return msgspec.json.decode(body)["items"]


async def lines_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What stands in each line of an answer, as it comes."""
    async for text in response.content:
        if text.strip():
            yield text
