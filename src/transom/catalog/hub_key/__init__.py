"""HubKey: a key that people and programs show at the hub itself. The hub knows its hash alone.

`kind.py` says what it holds; `transom auth create-key` makes the key. What it may do is said by bindings.
"""
