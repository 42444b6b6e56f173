"""The API in several worker processes, as the container runs it.

    python -m tp1_mnist_api.serving.server     # Linux and macOS; http://127.0.0.1:5000

Settings come from the environment: HOST (127.0.0.1), PORT (5000), WORKERS (2), MODEL (the
champion), LOG_REQUESTS (1), LIMIT_JSON_BYTES (1 MiB), LIMIT_PICTURE_BYTES (10 MiB), BODY_SECONDS
(10: how long a client may take to send its body), DRAIN_SECONDS (1: see `DrainingServer`).
"""

import gc
import mmap
import os
import sys
import tempfile
import threading
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

FLAG = "draining"


def setting(name: str, default: int, lowest: int, highest: int) -> int:
    """Integer `name` of the environment; exits with a clear message where it is none or outside."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        print(f"error: {name} must be {lowest} to {highest}, got {text}", file=sys.stderr)
        raise SystemExit(2)
    return int(text)


class DrainingServer(Granian):
    """Granian that says goodbye before it stops.

    At SIGTERM the workers first answer `Connection: close` and /ready 503 for `DRAIN_SECONDS`, so
    that clients and load balancers go elsewhere, and only then stop listening. Without this, the
    next request on an idle connection can meet its closing.
    """

    def signal_handler_interrupt(self, *args: object, **options: object) -> None:
        """Raise the flag, stop later; a second signal stops at once."""
        flag = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], FLAG)
        seconds = setting("DRAIN_SECONDS", 1, 0, 600)
        if seconds == 0 or flag.read_bytes() == b"\1":
            super().signal_handler_interrupt(*args, **options)
            return
        with flag.open("r+b") as file:
            file.write(b"\1")
        timer = threading.Timer(seconds, super().signal_handler_interrupt)
        timer.daemon = True
        timer.start()


def worker():
    """The app of one worker process, called by granian."""
    from tp1_mnist_api.app import Limits, create_app
    from tp1_mnist_api.serving import observe
    from tp1_mnist_api.serving.model_file import Model, ModelError, default_model
    from tp1_mnist_api.serving.rsgi import RsgiApp

    with Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], FLAG).open("rb") as file:
        flag = mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ)  # shared with the parent
    try:
        model = Model(default_model())
    except ModelError as error:  # it was readable when the server started
        observe.log(level="error", message=str(error))
        model = None
    limits = Limits(
        json_bytes=setting("LIMIT_JSON_BYTES", Limits.json_bytes, 8192, 2**30),
        picture_bytes=setting("LIMIT_PICTURE_BYTES", Limits.picture_bytes, 8192, 2**30),
    )
    app = create_app(
        model,
        limits=limits,
        log_requests=setting("LOG_REQUESTS", 1, 0, 1) == 1,
        is_draining=lambda: flag[0] == 1,
    )
    gc.freeze()  # what is loaded now stays: the collector need not look at it again
    gc.set_threshold(20_000, 20, 20)
    return RsgiApp(app, setting("BODY_SECONDS", 10, 1, 600))


def main() -> None:
    """Check the settings and the model, start the workers, serve until a signal."""
    from tp1_mnist_api.serving.model_file import Model, ModelError, default_model

    port, workers = setting("PORT", 5000, 1, 65535), setting("WORKERS", 2, 1, 256)
    try:
        Model(default_model())
    except ModelError as error:
        print(f"error: {error}\nName a model with MODEL=/path/to/mnist.tflite.", file=sys.stderr)
        raise SystemExit(2) from None
    with tempfile.TemporaryDirectory(prefix="mnist-api-") as shared:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        Path(shared, FLAG).write_bytes(b"\0")
        DrainingServer(
            "tp1_mnist_api.serving.server:worker",
            factory=True,
            interface=Interfaces.RSGI,
            address=os.environ.get("HOST", "127.0.0.1"),
            port=port,
            workers=workers,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=10_000, max_buffer_size=65_536),
            websockets=False,
            respawn_failed_workers=True,
            workers_kill_timeout=30,
        ).serve()


if __name__ == "__main__":
    main()
