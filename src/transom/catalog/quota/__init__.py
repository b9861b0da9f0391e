"""Quota: how much of each kind a tenant may have."""
