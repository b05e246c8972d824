"""Metrics for Prometheus: the number and the time of requests, batch sizes, and the number of versions."""

import time

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("dropzoo_requests_total", "Requests", ("route", "status"), registry=self.registry)
        self.seconds = Histogram(
            "dropzoo_request_seconds", "Time to answer", ("route",), registry=self.registry, buckets=_SECONDS
        )
        self.batch_size = Histogram(
            "dropzoo_batch_size", "Images a batch", registry=self.registry, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.versions = Gauge("dropzoo_versions", "Versions that are served", registry=self.registry)

    def page(self, versions: int) -> Response:
        """Returns the metrics as text, with the number of versions that are served."""
        self.versions.set(versions)
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)


class Observed:
    """Middleware that counts every request, also one that fails.

    Args:
        app: The application that answers.
        metrics: The metrics to update.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            # The label is the pattern of the route, because each address would add a time series.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - start)
