"""Server-side apply: a PATCH with all that one manager wants of an object, made or merged into what is there.

Next on the data's way: `hub.fields` merges and knows who manages what; `bodies` checks what came out as if it
had been sent whole. https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from collections.abc import Mapping
from typing import Any, cast

from starlette.requests import Request

from transom.hub.api.bodies import OBJECT_BYTES_MAX, known_part, resource_from
from transom.hub.api.errors import OptionsError, RefusedError
from transom.hub.api.options import WriteOptions
from transom.hub.api.paths import Target
from transom.hub.changes import Held, setting_status, updating
from transom.hub.fields.merging import list_problems
from transom.hub.fields.tracking import Applying, Tracked, Updating, tracked
from transom.model.errors import ConflictError, InvalidError, NotFoundError, Problem
from transom.model.kinds import Catalog, Kind
from transom.model.resources import JsonObject, ManagedFields, Resource, to_json
from transom.model.schemas import schema_of

_MANAGER_BYTES_MAX = 128


class FieldManagement:
    """The tracked fields of every kind that is served, compiled once."""

    def __init__(self, catalog: Catalog) -> None:
        self._tracked: Mapping[str, Mapping[str, Tracked]] = {
            kind.name: tracked(kind, schema_of(kind), catalog[kind.stored].api_version)
            for kind in catalog.faces
        }

    def updating(self, request: Request, target: Target, options: WriteOptions) -> Updating:
        """What records a create, replace or patch: by the manager that the client names, or by the client."""
        # The transaction sees what is stored, also when the client sees it by other words.
        of_stored = self._tracked[target.kind.stored][target.subresource]
        return Updating(of_stored, options.manager or _user_agent(request))

    def applying(self, target: Target, body: JsonObject, options: WriteOptions) -> "Applied":
        """Server-side apply of `body`. Raises `OptionsError`, `RefusedError` and `InvalidError`."""
        if not options.manager:
            needed = Problem("fieldManager", "is required for apply patch", "Required")
            raise OptionsError("PatchOptions", [needed])
        _check_type(body, target.kind)
        body, warnings = known_part(body, target.kind, options.validation)
        of_kind = self._tracked[target.kind.name][target.subresource]
        problems = list(list_problems(of_kind.shape, of_kind.of_body(body)))
        if problems:
            raise InvalidError(str(target.key), problems)
        return Applied(target, of_kind, body, options, warnings)


class Applied:
    """The change that applying means; `created` says afterwards whether there was nothing before."""

    def __init__(
        self, target: Target, of_kind: Tracked, body: JsonObject, options: WriteOptions, warnings: list[str]
    ) -> None:
        self.created = False
        self.warnings = warnings
        self._target = target
        self._apply = Applying(of_kind, body, options.manager, force=bool(options.force))

    def __call__(self, held: Held) -> Resource:
        """See `hub.changes.Wanted`. The transaction may be done twice."""
        self.created = held is None
        if held is None and self._target.subresource:
            raise NotFoundError(f"{self._target.key} does not exist")
        whole, entries = self._apply.merged(held)
        resource, _ = resource_from(whole, self._target)
        wanted = self._creating(resource) if held is None else self._changing(resource, held)
        wanted = wanted.with_metadata(managed_fields=entries)
        # Whoever applies under ever new names makes it longer without changing a field of it.
        size = len(to_json(wanted))
        if size > OBJECT_BYTES_MAX and (held is None or size > len(to_json(held))):
            said = f"the object would be {size} bytes; at most {OBJECT_BYTES_MAX}"
            raise InvalidError(str(self._target.key), [Problem("", said, "TooLong")])
        return wanted

    def _creating(self, resource: Resource) -> Resource:
        meta = resource.metadata
        if meta.uid or meta.resource_version:
            said = f"uid {meta.uid}" if meta.uid else f"resourceVersion {meta.resource_version}"
            raise ConflictError(f"the provided object specified {said}, and no existing object was found")
        return resource.with_status({})

    def _changing(self, resource: Resource, held: Resource) -> Resource:
        meta = resource.metadata
        if self._target.subresource:
            change = setting_status(resource.key, meta.uid, resource.status, meta.resource_version)
        else:
            change = updating(resource)
        return cast("Resource", change(held))

    def tracking(self, held: Held, wanted: Resource, after: Resource, now: str) -> list[ManagedFields]:
        """See `hub.changes.Tracking`."""
        return self._apply(held, wanted, after, now)


def _check_type(body: JsonObject, kind: Kind) -> None:
    version, name = body.get("apiVersion", ""), body.get("kind", "")
    if (version, name) != (kind.api_version, kind.name):
        raise RefusedError(
            400, f"invalid object type: {version}, Kind={name}; expected {kind.api_version}, Kind={kind.name}"
        )
    metadata: Any = body.get("metadata")
    if isinstance(metadata, dict) and cast("JsonObject", metadata).get("managedFields") is not None:
        raise RefusedError(400, "metadata.managedFields must be nil")


def _user_agent(request: Request) -> str:
    """What a client calls itself, up to the first slash, as the Kubernetes API takes it."""
    said = request.headers.get("user-agent", "").partition("/")[0]
    shown = "".join(character for character in said if character.isprintable())
    return shown.encode()[:_MANAGER_BYTES_MAX].decode(errors="ignore")
