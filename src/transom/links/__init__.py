"""Crossing a border: the only code that appends to another region's log.

`publish` keeps a topic equal to a source of rows (state, down). `mirror` carries every entry of a topic, once
and in order (events, up). Both keep their position in the target log, in the same append as what they carry,
under a fence; so a crash anywhere repeats nothing and loses nothing, and a former worker that wakes too late
is refused. `naming` says what a mirrored topic is called and makes loops impossible.

Of a publisher: `source` is what it reads, `lanes` how one lane differs from another, `carrier` the hand that
appends, `sweeping` when tables are compared, `sweep` how.
"""
