"""A client of the hub's API: `config` finds the hub and the key, `hub` speaks to it.

The command line and the console stand on this alone; nothing here knows how the hub works inside.
"""
