"""Health checks: does an instance serve right now (`probe`), and what follows from it (`judge`).

Next on the data's way: `drivers.process`, which asks again and again.
"""

import asyncio
import contextlib

import aiohttp

from transom.region.driver import HealthCheck, Phase

_GOOD_BELOW = 400


async def probe(session: aiohttp.ClientSession, check: HealthCheck, host: str, port: int) -> str:
    """Why it does not serve; empty when it does: HTTP 2xx or 3xx, or a TCP connection, within the timeout."""
    what = f"GET {check.path} on port {port}" if check.kind == "http" else f"connecting to port {port}"
    try:
        async with asyncio.timeout(check.timeout_seconds):
            if check.kind == "tcp":
                _, writer = await asyncio.open_connection(host, port)
                writer.close()
                with contextlib.suppress(OSError):  # it was accepted; how it ends does not matter
                    await writer.wait_closed()
                return ""
            url = f"http://{host}:{port}{check.path}"
            async with session.get(url, allow_redirects=False) as response:
                good = response.status < _GOOD_BELOW
                return "" if good else f"{what} answered {response.status}"
    except TimeoutError:
        return f"{what} took longer than {check.timeout_seconds:g} s"
    except (OSError, aiohttp.ClientError, ValueError) as error:
        return f"{what} failed: {error}"


def judge(phase: Phase, check: HealthCheck, failures: int, in_phase_seconds: float) -> Phase:
    """The phase after a check, of which `failures` in a row have failed by now (0: this one went well)."""
    if phase in ("Stopping", "Dead"):
        return phase
    if failures == 0:
        return "Healthy"
    late = phase == "Starting" and in_phase_seconds >= check.start_seconds
    failing = phase == "Healthy" and failures >= check.unhealthy_after
    return "Unhealthy" if late or failing else phase
