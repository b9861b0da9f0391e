"""Contexts at the hub: built from resources, guarded, and shown to each region's publishers as rows.

The way of a change: `builder` sees what was described anew, `planning` says which rows that makes (pure),
`guards` hold back what would take too much away at once (pure), `store` writes the rest in one transaction
with the builder's own progress, `rows` is what a region's publishers read. `gates` lets bulk changes go to
one region first, `moves` takes a context from a region once the others have it, `service` puts all together,
`roads` carries them.
"""
