"""RoleBinding and HubRoleBinding: who may do what, in one tenant and in the whole hub.

`kind.py` says what they hold; `hub.access` decides by them.
"""
