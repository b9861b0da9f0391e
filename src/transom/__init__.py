"""transom: one pane of glass over many regions.

Start reading at `transom.model` (the values), then follow a change the way it travels:
`hub.store`, `hub.relay`, `hub.controllers`, `links.publish`, `tables`, `region.agent`,
and back up through `links.mirror` and `hub.archive`.
"""

__version__ = "0.1.0"
