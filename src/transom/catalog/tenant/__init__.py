"""Tenant: whose resources they are. A tenant's name is the namespace of what it owns."""
