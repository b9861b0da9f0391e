"""For whom resources were made: `ownerReferences`, how a deletion spreads along them, and what forbids one.

Pure. As Kubernetes has it: an owner deleted in the background goes at once and its dependents after it, one
deleted in the foreground waits for those that block it, one whose dependents are orphaned lets them go first.
https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion
Next on the data's way: `garbage` carries it out.
"""

from collections.abc import Sequence

from transom.model.errors import InvalidError, Problem, ProtectedError
from transom.model.kinds import Catalog
from transom.model.names import Key
from transom.model.resources import API_GROUP, OwnerReference, Resource

BACKGROUND, FOREGROUND, ORPHAN = "Background", "Foreground", "Orphan"
"""How a deletion spreads (`propagationPolicy`); "" leaves the finalizers as they are."""

WAITS_FOR_DEPENDENTS = "foregroundDeletion"
ORPHANS_DEPENDENTS = "orphan"
"""The finalizers that stand for the last two; the garbage collector takes them away."""

PROTECTED = f"{API_GROUP}/protected"
"""The label that forbids deletion where its value is "true"."""

GARBAGE_FINALIZERS = frozenset({WAITS_FOR_DEPENDENTS, ORPHANS_DEPENDENTS})

_FINALIZERS = {FOREGROUND: WAITS_FOR_DEPENDENTS, ORPHAN: ORPHANS_DEPENDENTS}


def finalizers_for(propagation: str, finalizers: Sequence[str]) -> list[str]:
    """The finalizers of what is deleted in this way. Raises `InvalidError` for a way there is not."""
    if not propagation:
        return list(finalizers)
    if propagation not in (BACKGROUND, FOREGROUND, ORPHAN):
        wrong = f"{propagation!r} is none of {BACKGROUND}, {FOREGROUND} and {ORPHAN}"
        raise InvalidError("the deletion", [Problem("propagationPolicy", wrong)])
    others = [name for name in finalizers if name not in GARBAGE_FINALIZERS]
    return [*others, _FINALIZERS[propagation]] if propagation in _FINALIZERS else others


def owner_key(catalog: Catalog, reference: OwnerReference, namespace: str) -> Key | None:
    """The resource that `reference` in a resource of `namespace` names; None when its kind is not known here,
    and nobody can say whether it is there.
    """
    kind = next((each for each in catalog if each.name == reference.kind), None)
    if kind is None or kind.group != reference.api_version.rpartition("/")[0]:
        return None
    return Key(kind.name, namespace if kind.namespaced else "", reference.name)


def is_protected(resource: Resource) -> bool:
    """Whether its label forbids to delete it."""
    return resource.metadata.labels.get(PROTECTED) == "true"


def check_unprotected(resource: Resource) -> None:
    """Raise `ProtectedError` when it must not be deleted. What is being deleted already goes on."""
    if is_protected(resource) and not resource.deleting:
        raise ProtectedError(
            f'{resource.key} is protected by its label {PROTECTED}: "true"; '
            "take the label away first, in a change of its own, then delete it"
        )
