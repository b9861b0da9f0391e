"""What a request asks beside its body: the options of each verb, as Kubernetes' API documents them.

They come in the query, those of a deletion in the body too. Options that do not go together are refused as
the Kubernetes API refuses them: 422 and every problem. Next on the data's way: `resources` and `lists`.
https://kubernetes.io/docs/reference/kubernetes-api/common-parameters/common-parameters/
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

from starlette.requests import Request

from transom.hub.api.errors import OptionsError, RefusedError
from transom.hub.api.query import Query, number, query_of, truth
from transom.hub.api.rendering import INCLUDE_OBJECT
from transom.hub.api.selectors import Selector, selector_of
from transom.hub.ownership import BACKGROUND, FOREGROUND, ORPHAN
from transom.model.errors import Problem
from transom.model.kinds import Kind
from transom.model.resources import JsonObject

Validation = Literal["Ignore", "Warn", "Strict"]
Match = Literal["", "Exact", "NotOlderThan"]

_VALIDATION: dict[str, Validation] = {"": "Strict", "Ignore": "Ignore", "Warn": "Warn", "Strict": "Strict"}
_MATCH: dict[str, Match] = {"": "", "Exact": "Exact", "NotOlderThan": "NotOlderThan"}
_PROPAGATION = ("", BACKGROUND, FOREGROUND, ORPHAN)
_MANAGER_CHARACTERS_MAX = 128
_WHY_CHARACTERS_MAX = 1000

_DELETING = frozenset(
    {
        "kind",
        "apiVersion",
        "preconditions",
        "gracePeriodSeconds",
        "propagationPolicy",
        "orphanDependents",
        "dryRun",
    }
)
_LISTING = (
    "watch",
    "limit",
    "continue",
    "labelSelector",
    "fieldSelector",
    "resourceVersion",
    "resourceVersionMatch",
    "timeoutSeconds",
    "allowWatchBookmarks",
    INCLUDE_OBJECT,
    "sendInitialEvents",
)


@dataclass(frozen=True)
class WriteOptions:
    """How a create, an update or a patch is done. `manager` is the field manager that the client names."""

    dry_run: bool
    validation: Validation
    manager: str
    why: str
    force: bool | None = None


def write_options(request: Request, kind: str, *more: str) -> WriteOptions:
    """The options of a write; `kind` is how the Kubernetes API calls them ("CreateOptions"), `more` are
    further words that the verb takes. Raises `RefusedError` and `OptionsError`.
    """
    query = query_of(request, "dryRun", "fieldManager", "fieldValidation", "why", *more)
    problems = _dry_run_problems(query.get("dryRun", ""))
    said = query.get("fieldValidation", "")
    if said not in _VALIDATION:
        problems.append(_unsupported("fieldValidation", said, ["", *sorted(_VALIDATION.keys() - {""})]))
    manager = query.get("fieldManager", "")
    if len(manager) > _MANAGER_CHARACTERS_MAX or not manager.isprintable():
        rule = f"must be at most {_MANAGER_CHARACTERS_MAX} printable characters"
        problems.append(Problem("fieldManager", rule))
    if problems:
        raise OptionsError(kind, problems)
    return WriteOptions(
        dry_run=bool(query.get("dryRun")),
        validation=_VALIDATION[said],
        manager=manager,
        why=_why(query),
        force=truth(query, "force"),
    )


@dataclass(frozen=True)
class DeleteOptions:
    """How a deletion is done. `propagation` is "" when the client leaves it to the hub."""

    dry_run: bool
    uid: str
    resource_version: str
    propagation: str
    why: str


DELETE_WORDS = ("dryRun", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "why")


def delete_options(query: Query, body: JsonObject) -> DeleteOptions:
    """The options of a deletion, from its query and its body; where both say something, it must be the same.

    `gracePeriodSeconds` is read and has no effect, as with every kind of Kubernetes but Pods: nothing here
    is stopped by its deletion before the controllers see it. Raises `RefusedError` and `OptionsError`.
    """
    said = _deleting(query, body)
    problems = _dry_run_problems(said["dryRun"])
    policy = said["propagationPolicy"]
    orphan = said["orphanDependents"]
    if policy not in _PROPAGATION:
        problems.append(_unsupported("propagationPolicy", policy, list(_PROPAGATION[1:])))
    elif policy and orphan is not None:
        both = "orphanDependents and deletionPropagation cannot be both set"
        problems.append(Problem("propagationPolicy", both))
    if problems:
        raise OptionsError("DeleteOptions", problems)
    if orphan is not None:
        policy = ORPHAN if orphan else BACKGROUND
    wanted = _preconditions(body)
    return DeleteOptions(
        dry_run=bool(said["dryRun"]),
        uid=wanted.get("uid", ""),
        resource_version=wanted.get("resourceVersion", ""),
        propagation=policy,
        why=_why(query),
    )


@dataclass(frozen=True)
class ListOptions:
    """What a list or a watch shows, and from when. `revision` is None when the client does not care."""

    selector: Selector
    limit: int | None
    token: str
    revision: int | None
    match: Match
    watch: bool
    seconds: int | None
    bookmarks: bool
    initial: bool | None


def list_options(query: Query, kind: Kind) -> ListOptions:
    """The options of a list or a watch of `kind`. Raises `RefusedError` and `OptionsError`.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
    """
    said, initial = query.get("resourceVersionMatch", ""), truth(query, "sendInitialEvents")
    watch = bool(truth(query, "watch"))
    tell = _watch_problems if watch else _list_problems
    problems = tell(query, said, initial=initial)
    if problems:
        raise OptionsError("ListOptions", problems)
    token = query.get("continue", "")
    if token and query.get("resourceVersion", "") not in ("", "0"):
        raise RefusedError(400, "specifying resource version is not allowed when using continue")
    return ListOptions(
        selector=selector_of(kind, query.get("labelSelector", ""), query.get("fieldSelector", "")),
        limit=number(query, "limit") or None,
        token=token,
        revision=revision_in(query),
        match=_MATCH[said],
        watch=watch,
        seconds=number(query, "timeoutSeconds") or None,
        bookmarks=bool(truth(query, "allowWatchBookmarks")),
        initial=initial,
    )


def listed(request: Request, kind: Kind) -> ListOptions:
    """The options in the query of a request to list or watch."""
    return list_options(query_of(request, *_LISTING), kind)


def deletion_of_many(request: Request, kind: Kind, body: JsonObject) -> tuple[ListOptions, DeleteOptions]:
    """What a request to delete a collection deletes, and how."""
    query = query_of(request, *_LISTING, *DELETE_WORDS)
    chosen = list_options(query, kind)
    if chosen.watch:
        raise RefusedError(400, "query parameter 'watch' has no meaning for a deletion")
    return chosen, delete_options(query, body)


def revision_in(query: Query) -> int | None:
    """The `resourceVersion` in a query; None when there is none."""
    text = query.get("resourceVersion", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004  # 64 bits
        raise RefusedError(400, f"resourceVersion: Invalid value: {text!r}: must be a whole number")
    return int(text)


def _list_problems(query: Query, match: str, *, initial: bool | None) -> list[Problem]:
    problems: list[Problem] = []
    field = "resourceVersionMatch"
    if match:
        if not query.get("resourceVersion"):
            problems.append(_forbidden(field, f"{field} is forbidden unless resourceVersion is provided"))
        if query.get("continue"):
            problems.append(_forbidden(field, f"{field} is forbidden when continue is provided"))
        if match not in _MATCH:
            problems.append(_unsupported(field, match, ["Exact", "NotOlderThan", ""]))
        if match == "Exact" and query.get("resourceVersion") == "0":
            said = f'{field} "exact" is forbidden for resourceVersion "0"'
            problems.append(_forbidden(field, said))
    if initial is not None:
        problems.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return problems


def _watch_problems(query: Query, match: str, *, initial: bool | None) -> list[Problem]:
    problems: list[Problem] = []
    field = "resourceVersionMatch"
    if initial is not None and match != "NotOlderThan":
        said = f"sendInitialEvents requires setting {field} to NotOlderThan"
        problems.append(_forbidden(field, said))
    if match:
        if initial is None:
            said = f"{field} is forbidden for watch unless sendInitialEvents is provided"
            problems.append(_forbidden(field, said))
        if match != "NotOlderThan":
            problems.append(_unsupported(field, match, ["NotOlderThan"]))
        if query.get("continue"):
            problems.append(_forbidden(field, f"{field} is forbidden when continue is provided"))
    return problems


def _deleting(query: Query, body: JsonObject) -> dict[str, Any]:
    """The options of a deletion as text and truth, wherever they were said."""
    unknown = sorted(set(body) - _DELETING)
    if unknown:
        raise RefusedError(400, f"unknown field {unknown[0]!r} in the options of a deletion")
    dry = body.get("dryRun")
    if not (dry is None or (isinstance(dry, list) and all(isinstance(each, str) for each in dry))):  # pyright: ignore[reportUnknownVariableType]
        raise RefusedError(400, "dryRun must be a list of texts")
    grace = body.get("gracePeriodSeconds")
    if not (grace is None or (isinstance(grace, int) and not isinstance(grace, bool) and grace >= 0)):
        raise RefusedError(400, "gracePeriodSeconds must be a whole number, 0 or more")
    policy, orphan = body.get("propagationPolicy"), body.get("orphanDependents")
    if not isinstance(policy, str | None) or not isinstance(orphan, bool | None):
        raise RefusedError(400, "propagationPolicy must be text, and orphanDependents true or false")
    there: dict[str, Any] = {
        "dryRun": ",".join(cast("list[str]", dry)) if dry else None,
        "propagationPolicy": policy,
        "orphanDependents": orphan,
        "gracePeriodSeconds": grace,
    }
    here: dict[str, Any] = {
        "dryRun": query.get("dryRun") or None,
        "propagationPolicy": query.get("propagationPolicy") or None,
        "orphanDependents": truth(query, "orphanDependents"),
        "gracePeriodSeconds": number(query, "gracePeriodSeconds"),
    }
    for word, value in there.items():
        if value is not None and here[word] not in (None, value):
            raise RefusedError(400, f"{word} is {here[word]!r} in the query and {value!r} in the body")
    said = {word: here[word] if value is None else value for word, value in there.items()}
    return {**said, "dryRun": said["dryRun"] or "", "propagationPolicy": said["propagationPolicy"] or ""}


def _preconditions(body: JsonObject) -> dict[str, str]:
    wanted: Any = body.get("preconditions") or {}
    if not isinstance(wanted, dict) or set(cast("JsonObject", wanted)) - {"uid", "resourceVersion"}:
        raise RefusedError(400, "preconditions are uid and resourceVersion")
    given = {word: value for word, value in cast("JsonObject", wanted).items() if value is not None}
    if not all(isinstance(value, str) for value in given.values()):
        raise RefusedError(400, "preconditions are uid and resourceVersion, both text")
    return given


def _dry_run_problems(said: str) -> list[Problem]:
    return [] if said in ("", "All") else [_unsupported("dryRun", said, ["All"])]


def _why(query: Query) -> str:
    why = query.get("why", "")
    if len(why) > _WHY_CHARACTERS_MAX:
        raise RefusedError(400, f"the reason ('why') is over {_WHY_CHARACTERS_MAX} characters")
    return why


def _forbidden(field: str, said: str) -> Problem:
    return Problem(field, said, "Forbidden")


def _unsupported(field: str, value: str, supported: list[str]) -> Problem:
    listed = ", ".join(f'"{each}"' for each in supported)
    return Problem(field, f'"{value}": supported values: {listed}', "NotSupported")
