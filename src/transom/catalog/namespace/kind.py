"""What a Namespace is: a Tenant, shown to clients that know only Namespaces.

Making one makes a Tenant whose spec is empty; what is labelled, annotated or deleted is the Tenant. As with
Kubernetes, `spec.finalizers` cannot be set by writing a Namespace, and the label that holds its name is there
by itself.
"""

from pydantic import Field

from transom.catalog.statuses import Status
from transom.catalog.tenant.kind import TENANT
from transom.model.kinds import Column, Kind, Spec, View
from transom.model.resources import Resource

NAME_LABEL = "kubernetes.io/metadata.name"


class NamespaceSpec(Spec):
    """What a Namespace may say: nothing that is kept. A Tenant's spec is written as a Tenant."""

    finalizers: list[str] | None = Field(default=None, max_length=100)
    """As other clusters have it; always as the hub sets it."""


class NamespaceStatus(Status):
    """Whether it can be used."""

    phase: str
    """Active, or Terminating once its deletion was asked for."""


def _show(tenant: Resource) -> Resource:
    meta = tenant.metadata
    status = {"phase": "Terminating" if tenant.deleting else "Active"}
    shown = Resource(NAMESPACE.name, meta, NAMESPACE.api_version, {}, status)
    return shown.with_metadata(labels={**meta.labels, NAME_LABEL: meta.name})


def _read(namespace: Resource, held: Resource | None) -> Resource:
    labels = dict(namespace.metadata.labels)
    labels.pop(NAME_LABEL, None)
    meta = namespace.with_metadata(labels=labels).metadata
    spec, status = (held.spec, held.status) if held else ({}, {})
    return Resource(TENANT.name, meta, TENANT.api_version, spec, status)


NAMESPACE = Kind(
    name="Namespace",
    plural="namespaces",
    group="",
    short_names=("ns",),
    spec=NamespaceSpec,
    status=NamespaceStatus,
    namespaced=False,
    write_by="operator",
    view=View(TENANT.name, _show, _read),
    columns=(Column("STATUS", lambda namespace: str(namespace.status.get("phase", ""))),),
)
