"""What an Instance is. It has no spec: its region brings it forth, and alone writes its status."""

from transom.catalog.statuses import Status
from transom.model.kinds import REGION, Column, Kind
from transom.model.resources import Resource


class InstanceStatus(Status):
    """One running copy of an app: where it is and how it does."""

    region: str = ""
    """The region it runs in."""
    zone: str = ""
    """The zone it runs in."""
    app: str = ""
    """The Deployment it runs for."""
    uid: str = ""
    """The uid of the RegionalDeployment it runs for."""
    version: str = ""
    """The version of the app that it runs."""
    host: str = ""
    """Where it is reached."""
    port: int = 0
    """The port it listens on."""
    health: str = ""
    """Healthy, Unhealthy or Starting."""
    started_at: str = ""
    """When it was started."""


def _status(field: str) -> Column:
    def show(instance: Resource) -> str:
        return str(instance.status.get(field, ""))

    return Column(field.upper(), show)


INSTANCE = Kind(
    name="Instance",
    plural="instances",
    spec=None,
    status=InstanceStatus,
    owner=REGION,
    status_owner=REGION,
    reads=("RegionalDeployment",),
    dotted_names=True,
    columns=tuple(_status(field) for field in ("region", "zone", "version", "host", "port", "health")),
)
