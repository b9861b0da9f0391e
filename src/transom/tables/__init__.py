"""A table holds the newest version of every key of one or more topics, durably, beside whoever reads it.

`core` decides what is newer; `memory` and `sqlite` keep the rows and pass one contract suite; `keeper`
follows a log into a table; `digests` tell whether two tables agree, `sweeps` how that is asked over a log;
`seals` prove who sent a record. Next on the data's way: `links` carries
records between logs, `region.agent` acts on a table.
"""
