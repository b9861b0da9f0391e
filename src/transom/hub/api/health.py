"""What the hub says of its own health and release, in the words of Kubernetes' API server.

`/livez`: the process answers. `/readyz`: and its workers work. Both are "ok" or a list of checks
(`?verbose`), without reasons: those are for who may read the log. `/healthz` says the same as `/readyz` to
who asks for text, and lists the workers to everyone else.
https://kubernetes.io/docs/reference/using-api/health-checks/
"""

import platform
from collections.abc import Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from transom import __version__
from transom.hub.api.errors import JSON, answer
from transom.runtime.tasks import WorkerState

_TEXT = "text/plain"

KUBERNETES = (1, 37)
"""The release of Kubernetes whose conventions the API keeps to, and whose kubectl it is tested with.

Clients compare it with their own: kubectl warns when they are more than one apart, Helm and Argo CD choose
by it what they send. Ours stands behind it, as build metadata (semver.org), which clients leave out when they
compare.
"""


class Health:
    """The pages of one process; `states` says what its workers do."""

    def __init__(self, states: Callable[[], Iterable[WorkerState]]) -> None:
        self._states = states

    def routes(self) -> list[Route]:
        """A route for every page."""
        return [
            Route("/healthz", self.healthz),
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/version", self.version),
            Route("/version/", self.version),  # as the Python client asks
        ]

    async def healthz(self, request: Request) -> Response:
        """GET {workers: {NAME: "running" | "retrying" | "stopped"}}, or the words of `readyz`."""
        accept = request.headers.get("accept", "")
        if (_TEXT in accept and JSON not in accept) or "verbose" in request.query_params:
            return self._checked(request, "healthz")
        return answer({"workers": {state.name: state.state for state in self._states()}})

    async def livez(self, request: Request) -> Response:
        """GET whether the process answers."""
        return self._checked(request, "livez", workers=False)

    async def readyz(self, request: Request) -> Response:
        """GET whether the process and all its workers work; 500 when one does not."""
        return self._checked(request, "readyz")

    async def version(self, _request: Request) -> Response:
        """GET the release, as Kubernetes' clients read it."""
        major, minor = KUBERNETES
        told = {
            "major": str(major),
            "minor": str(minor),
            "gitVersion": f"v{major}.{minor}.0+transom.{__version__}",
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "",
            "goVersion": "",
            "compiler": platform.python_implementation(),
            "platform": f"{platform.system()}/{platform.machine()}".lower(),
        }
        return answer(told)

    def _checked(self, request: Request, page: str, *, workers: bool = True) -> Response:
        checks = {"ping": True}
        if workers:
            checks |= {state.name: state.state == "running" for state in self._states()}
        excluded = set(request.query_params.getlist("exclude"))
        well = all(fine for name, fine in checks.items() if name not in excluded)
        if well and "verbose" not in request.query_params:
            return Response("ok", media_type=_TEXT)
        lines = [_line(name, fine, name in excluded) for name, fine in checks.items()]
        strange = ", ".join(sorted(excluded - set(checks)))
        lines += [f"warn: some health checks cannot be excluded: no matches for {strange}"] if strange else []
        text = "\n".join([*lines, f"{page} check {'passed' if well else 'failed'}", ""])
        return Response(text, 200 if well else 500, media_type=_TEXT)


def _line(name: str, fine: bool, excluded: bool) -> str:  # noqa: FBT001
    if excluded:
        return f"[+]{name} excluded: ok"
    return f"[+]{name} ok" if fine else f"[-]{name} failed: reason withheld"
