"""What a gateway counts, cheaply: plain integers on the way, Prometheus' families when somebody asks."""

from bisect import bisect_left
from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

ROUTES = ("decide", "proxy", "own", "other")
_CLASSES = 6  # 0: the client left before there was an answer; 1xx to 5xx
_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Stats(Collector):
    """The counts of one gateway. `dropped` tells how many lines of the access log were lost."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped
        self.requests: dict[str, list[int]] = {route: [0] * _CLASSES for route in ROUTES}
        self._seconds: dict[str, list[int]] = {route: [0] * (len(_BOUNDS) + 1) for route in ROUTES}
        self._sums: dict[str, float] = dict.fromkeys(ROUTES, 0.0)
        self.connections = 0
        self.refused_connections = 0
        self.upstream_errors = {"connect": 0, "lost": 0, "invalid": 0, "timeout": 0, "none": 0}
        self.retries = 0
        self.errors = 0
        """Requests that failed for the gateway's own fault: it could not tell, or it broke."""

    def note(self, route: str, status: int, seconds: float) -> None:
        """Count one request that has ended."""
        self.requests[route][status // 100] += 1
        self._seconds[route][bisect_left(_BOUNDS, seconds)] += 1
        self._sums[route] += seconds

    def collect(self) -> Iterable[Metric]:
        """Everything, as Prometheus reads it."""
        requests = CounterMetricFamily(
            "transom_gateway_requests", "Requests by route and class of status.", labels=("route", "status")
        )
        times = HistogramMetricFamily(
            "transom_gateway_request_seconds", "From a head's last byte to its answer's.", labels=("route",)
        )
        for route in ROUTES:
            for kind, count in enumerate(self.requests[route]):
                requests.add_metric((route, f"{kind}xx" if kind else "none"), count)
            total, buckets = 0, list[tuple[str, float]]()
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), self._seconds[route], strict=True):
                total += count
                buckets.append((bound, total))
            times.add_metric((route,), buckets, self._sums[route])
        upstream = CounterMetricFamily(
            "transom_gateway_upstream_errors", "Failures of instances, by what failed.", labels=("what",)
        )
        for what, count in self.upstream_errors.items():
            upstream.add_metric((what,), count)
        simple = (
            ("retries", "Requests tried once more.", self.retries),
            ("errors", "Requests that failed for the gateway's own fault.", self.errors),
            ("connections_refused", "Connections beyond the limit.", self.refused_connections),
            ("access_log_dropped", "Lines of the access log that were lost.", self._dropped()),
        )
        for name, text, count in simple:
            yield CounterMetricFamily(f"transom_gateway_{name}", text, value=count)
        yield GaugeMetricFamily("transom_gateway_connections", "Open connections.", value=self.connections)
        yield from (requests, times, upstream)
