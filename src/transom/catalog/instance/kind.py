"""What an Instance is.

It has no spec. Its status, written by its region alone: `region`, `zone`, `app` (the Deployment), `uid` (of
the RegionalDeployment it runs for), `version`, `host`, `port`, `health` ("Healthy", "Unhealthy",
"Starting"), `startedAt`.
"""

from transom.model.kinds import REGION, Column, Kind
from transom.model.resources import Resource


def _status(field: str) -> Column:
    def show(instance: Resource) -> str:
        return str(instance.status.get(field, ""))

    return Column(field.upper(), show)


INSTANCE = Kind(
    name="Instance",
    plural="instances",
    spec=None,
    owner=REGION,
    status_owner=REGION,
    reads=("RegionalDeployment",),
    dotted_names=True,
    columns=tuple(_status(field) for field in ("region", "zone", "version", "host", "port", "health")),
)
