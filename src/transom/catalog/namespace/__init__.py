"""Namespace: a Tenant as clients of the Kubernetes API look for it."""
