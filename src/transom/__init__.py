"""transom: one pane of glass over many regions.

Start reading at `transom.model` (the values), then follow a change the way it travels:
`hub.store`, `hub.relay`, `hub.controllers`, `links.publish`, `tables`, `region.agent`,
and back up through `links.mirror` and `hub.archive`.

`LoadingCache`, with the answers `Found` and `Absent` of its loaders and its `SaturatedError`, is of use by
itself. It is imported when it is asked for, so that importing transom stays cheap.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transom.runtime.loading_cache import Absent, Found, LoadingCache, SaturatedError

__all__ = ["Absent", "Found", "LoadingCache", "SaturatedError", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from transom.runtime import loading_cache  # noqa: PLC0415  # see above: only when it is asked for

    return getattr(loading_cache, name)
