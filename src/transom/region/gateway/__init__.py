"""A region's front door: decides about every request from what the region knows, and forwards it.

`server` speaks HTTP/1.1, `front` says which request is for whom, `decider` decides, `proxy` forwards,
`instances` knows where the apps run. Nothing here waits for another region.
"""
