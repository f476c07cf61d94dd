"""What the server counts, in the text format of Prometheus (prometheus_client)."""

import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import (  # pyright: ignore[reportMissingImports]
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
    process_collector,
)

from .batching import Watch
from .workers import MULTIPROCESS

CONTENT_TYPE = CONTENT_TYPE_LATEST
ERRORS = {
    **{400: "malformed", 401: "token", 403: "forbidden", 404: "not_found", 405: "method", 408: "slow", 410: "gone"},
    **{413: "too_large", 416: "range", 422: "invalid", 429: "rate", 500: "internal", 503: "busy"},
}
"""Status of an answer -> kind of error."""

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of a server."""

    def __init__(self) -> None:
        """Make them, all at zero; of several processes if `PROMETHEUS_MULTIPROC_DIR` is set."""
        self._registry = registry = CollectorRegistry()
        given: dict[str, Any] = {"namespace": "twinreel", "registry": registry}
        self._requests = Counter("requests", "Answered requests.", ["method", "route", "status"], **given)
        self._seconds = Histogram(
            "request_seconds", "From the first byte of a request to its answer.", ["route"], buckets=_SECONDS, **given
        )
        self._errors = Counter("errors", "Requests that were refused or failed, by kind.", ["kind"], **given)
        self._rows = Histogram(
            "encode_batch_rows", "Real rows of the batches that were encoded.", ["side"], buckets=_ROWS, **given
        )
        self._encoding = Histogram(
            "encode_batch_seconds", "Time to encode a batch.", ["side"], buckets=_SECONDS, **given
        )
        self._queue = Gauge(
            "encode_queue_rows", "Rows that wait to be encoded.", ["side"], multiprocess_mode="livesum", **given
        )
        self._index = Gauge("index_size", "Size of the index.", ["of"], multiprocess_mode="max", **given)
        if MULTIPROCESS not in os.environ:
            process_collector.ProcessCollector(registry=registry)  # memory, CPU time, open files

    def watch(self, side: str) -> Watch:
        """Return what counts the batches of a side and the length of its queue."""
        rows, seconds, queue = self._rows.labels(side), self._encoding.labels(side), self._queue.labels(side)

        def batch(count: int, duration: float) -> None:
            rows.observe(count)
            seconds.observe(duration)

        return Watch(batch=batch, queue=queue.set)

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
          method: GET, POST, ...
          route: the path with the names of its parameters; "" = none was reached.
          status: of the answer.
          seconds: how long it took.
        """
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if status >= 400:
            self._errors.labels(ERRORS.get(status, str(status))).inc()

    def text(self, facts: dict[str, Any]) -> bytes:
        """Return all metrics in the text format.

        Args:
          facts: of `Service.facts`, for the size of the index.
        """
        for name in ("files", "moments"):
            self._index.labels(name).set(facts[name])
        registry = self._registry
        if MULTIPROCESS in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)


class Measured:
    """An ASGI application around another one: counts its answers, refusals included."""

    def __init__(self, app: Callable[..., Awaitable[None]], *, metrics: Metrics):
        """Wrap an application."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        """Pass a request on, and count its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "")
            seconds = time.monotonic() - begun
            self._metrics.answered(method=scope["method"], route=route, status=status, seconds=seconds)
