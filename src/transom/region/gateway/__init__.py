"""A region's front door: decides about every request from what the region knows, and forwards it.

A process of its own (`service`), several a region if need be, each with its own tables. `server` speaks
HTTP/1.1, `front` says which request is for whom, `decider` decides on `grants`, `proxy` forwards, `instances`
knows where the apps run. `following` feeds the tables from the region's log (`region_log`), `heartbeat` says
what is known. Nothing here waits for another region, and with hub and log gone it goes on.
"""
