"""Who asks, and what they may do: values and decisions, without HTTP.

`hub.api.door` finds out who sent a request; every verb is decided on before it touches the store.
"""
