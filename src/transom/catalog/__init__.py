"""The kinds that ship. Each has a folder: `kind.py` (model alone), `controller.py` (runs in the hub),
`driver.py` (runs in a region). A region's process imports no controller, the hub no driver.

To add a kind: write its `kind.py`, name it in `kinds.py`, and, if people's words must become others',
a controller; if a region must act on it, a driver. Kinds of your own need nothing here: `model.own`.
"""
