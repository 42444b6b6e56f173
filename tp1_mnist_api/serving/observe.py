"""What can be seen of a running API: Prometheus metrics and one JSON log line a request.

The metrics are of three kinds: the service (requests, errors, time), the data (refused inputs,
ink) and the model (classes, confidence). With `PROMETHEUS_MULTIPROC_DIR` set, as `server.py` does,
they add up over all workers.
"""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec
import numpy as np
from flask import Flask, Response, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

REQUESTS = Counter("mnist_requests", "Answers", ["route", "method", "status"])
SECONDS = Histogram(
    "mnist_request_seconds", "Time from the request's arrival in the app to its answer",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
)  # fmt: skip
REFUSED = Counter("mnist_refused_inputs", "Inputs that could not be used", ["reason"])
INK = Histogram(
    "mnist_input_mean", "Mean pixel of an image, 0..1; MNIST's own is 0.13 on average",
    buckets=(0.02, 0.05, 0.08, 0.1, 0.13, 0.16, 0.2, 0.3, 0.5),
)  # fmt: skip
CLASSES = Counter("mnist_predictions", "Predicted digits", ["digit"])
CONFIDENCE = Histogram(
    "mnist_confidence", "Probability of the predicted digit",
    buckets=(0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999),
)  # fmt: skip

METHODS = ("GET", "POST", "HEAD", "OPTIONS")

_digits = [CLASSES.labels(digit) for digit in range(10)]
_requests: dict[tuple, Counter] = {}  # spares finding the labelled child each time
_id_allowed = re.compile(r"[\w.-]{1,64}", re.ASCII).fullmatch


def count_predictions(pixels: np.ndarray, probabilities: np.ndarray) -> None:
    """Record inputs (n, 784) and outputs (n, 10)."""
    for image, row in zip(pixels, probabilities, strict=True):
        digit = row.argmax()
        INK.observe(image.sum() / 784)
        _digits[digit].inc()
        CONFIDENCE.observe(row[digit])


def log(**fields: object) -> None:
    """Write one JSON line to standard output; a reader that went away doesn't stop the service."""
    line = msgspec.json.encode({"time": time.time(), **fields}) + b"\n"
    with suppress(OSError):
        os.write(sys.stdout.fileno(), line)  # one call, so that lines of two workers don't mix


def log_error(error: Exception) -> None:
    """Log an unforeseen error with its traceback; the client gets the request's id alone."""
    trace = "".join(traceback.format_exception(error))
    log(level="error", request_id=request.environ["request_id"], traceback=trace)


def watch(app: Flask, log_requests: bool) -> None:
    """Give each request an id, count it, time it and, if wanted, log it; add GET /metrics.

    Done around Flask instead of in its hooks: one call an answer, and nothing escapes.
    """

    @app.get("/metrics")
    def metrics() -> Response:
        registry = REGISTRY
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    inner = app.wsgi_app
    routes = {rule.rule for rule in app.url_map.iter_rules()}

    def watched(environ: dict, start_response: Callable) -> Iterable[bytes]:
        began = time.perf_counter()
        wanted = environ.get("HTTP_X_REQUEST_ID", "")
        request_id = wanted if _id_allowed(wanted) else os.urandom(8).hex()
        environ["request_id"] = request_id

        def start(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
            seconds = time.perf_counter() - began
            headers.append(("X-Request-ID", request_id))
            path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
            route = path if path in routes else "other"
            key = (route, method if method in METHODS else "other", status[:3])
            if key not in _requests:
                _requests[key] = REQUESTS.labels(*key)
            _requests[key].inc()
            SECONDS.observe(seconds)
            if log_requests:
                log(
                    level="info", request_id=request_id, method=method, route=route,
                    status=int(status[:3]), milliseconds=round(seconds * 1000, 3),
                )  # fmt: skip
            start_response(status, headers, exc_info)

        return inner(environ, start)

    app.wsgi_app = watched
