"""The hub's HTTP API, in the conventions of the Kubernetes API.

The data's way of a request: `app` (routes) -> `paths` (what it is about) -> `bodies` (what was sent) ->
`resources` (the verbs) -> `hub.changes` and `hub.store`; and back through `errors`.
"""
