"""ApiKey: a key that requests show at a region's gateway. The hub knows its hash alone.

`kind.py` says what it holds, `context.py` what regions know of it; `transom keys create` makes the key.
"""
