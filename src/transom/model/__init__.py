"""Values only: names, versions, records, resources, kinds, errors. No I/O, no clock, no other room.

Every other room may import this one; this one imports none. Read `version` first: the rest of
transom follows from how versions compare.
"""
