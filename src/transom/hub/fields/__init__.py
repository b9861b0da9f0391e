"""Who manages which field of an object, and what follows when somebody applies a part of it. No I/O.

The data's way: `shapes` (how a kind's fields are owned) -> `sets` (which fields) -> `walks` and `merging`
(over objects) -> `managers` (applying and updating) -> `entries` (metadata.managedFields) -> `tracking` (the
hook that every write through the API carries).
https://github.com/kubernetes/enhancements/tree/master/keps/sig-api-machinery/555-server-side-apply
"""
