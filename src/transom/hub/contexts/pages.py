"""Subjects as the builder reads them from the store, when it is not told which ones: page by page.

Next on the data's way: `builder` plans what becomes of them.
"""

from collections.abc import Collection

from transom.hub.contexts.jobs import Run
from transom.hub.contexts.planning import TENANT, Subject
from transom.hub.contexts.store import ContextStore, Described


async def of_tenant(
    contexts: ContextStore, kinds: Collection[str], tenant: str, most: int
) -> list[Described] | None:
    """The subjects of `kinds` that belong to a tenant; None when they are more than `most`."""
    found: list[Described] = []
    for kind in sorted(set(kinds) - {TENANT}):
        room = most - len(found)
        if room < 0:
            return None
        found.extend(await contexts.subjects(kind, tenant, None, room + 1))
    return found if len(found) <= most else None


async def next_page(contexts: ContextStore, run: Run, most: int) -> list[Subject] | None:
    """The next subjects of a job, up to `most`; None when all were seen."""
    job = run.job
    while run.subjects:
        kind = run.subjects[0]
        namespace = "" if kind == TENANT else job.scope.tenant
        page = await contexts.subjects(kind, namespace, run.after, most)
        run.after = page[-1].key if page else None
        if len(page) < most:
            run.subjects.pop(0)
            run.after = None
        subjects = [Subject(found.key, found.resource, job.cause) for found in page]
        # Only what was held back may be about subjects that are gone.
        wanted = [
            each
            for each in subjects
            if (each.resource is not None or job.cause.what == "again")
            and job.scope.tenant in ("", each.tenant)
        ]
        if wanted:
            return wanted
    return None
