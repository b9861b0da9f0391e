"""What a log is, and the logs there are.

`protocol` says what every log promises; `memory`, `sqlite` and `remote` keep the promise and all pass one
contract suite. `records` lays a versioned record out as a log's message. Next on the data's way: `tables`.
"""
