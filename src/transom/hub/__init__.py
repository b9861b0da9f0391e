"""Where intent is accepted and the whole is shown.

The data's way: `api` (who asks, what they may: `access`) -> `changes` (what a write means; `fields`: who
manages what of it) -> `store` (resources, history and outbox in one
transaction) -> `relay` (outbox to the hub's log) -> `controllers` (wake, read, plan, write) -> `rows` (what
each region is to have) -> `links.publish`. And back: `links.mirror` -> `archive` -> `store` -> `controllers`.
"""
