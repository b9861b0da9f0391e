"""A region: what was asked for becomes real here, without anyone's help, and what is true is reported.

`desired` takes in what the hub published, `agent` compares it with what a `driver` observes and acts by a
pure plan (`planning`), `reports` appends what changed to the region's own log. `service` puts one region
together. A region knows no way to the hub.
"""
