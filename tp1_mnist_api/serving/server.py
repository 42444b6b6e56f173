"""The API in several worker processes, as the container runs it.

    python -m tp1_mnist_api.serving.server     # Linux and macOS; http://127.0.0.1:5000

Settings come from the environment: HOST (127.0.0.1), PORT (5000), WORKERS (2), MODEL (the
champion), LOG_REQUESTS (1), LIMIT_JSON_BYTES (1 MiB), LIMIT_PICTURE_BYTES (10 MiB), BODY_SECONDS
(10: how long a client may take to send its body), DRAIN_SECONDS (1: see `DrainingServer`).
"""

import gc
import mmap
import os
import tempfile
import threading
from pathlib import Path

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings

from tp1_mnist_api.serving import settings

FLAG = "draining"


class DrainingServer(Granian):
    """Granian that says goodbye before it stops.

    At SIGTERM the workers first answer `Connection: close` and /ready 503 for `DRAIN_SECONDS`, so
    that clients and load balancers go elsewhere, and only then stop listening. Without this, the
    next request on an idle connection can meet its closing.
    """

    def signal_handler_interrupt(self, *args: object, **options: object) -> None:
        """Raise the flag, stop later; a second signal stops at once."""
        flag = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"], FLAG)
        seconds = settings.setting("DRAIN_SECONDS")
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
        json_bytes=settings.setting("LIMIT_JSON_BYTES"),
        picture_bytes=settings.setting("LIMIT_PICTURE_BYTES"),
    )
    app = create_app(
        model,
        limits=limits,
        log_requests=settings.setting("LOG_REQUESTS") == 1,
        is_draining=lambda: flag[0] == 1,
    )
    gc.freeze()  # what is loaded now stays: the collector need not look at it again
    gc.set_threshold(20_000, 20, 20)
    return RsgiApp(app, settings.setting("BODY_SECONDS"))


def main() -> None:
    """Check the settings and the model, start the workers, serve until a signal."""
    from tp1_mnist_api.serving.model_file import Model, ModelError, default_model

    host, values = settings.host(), {name: settings.setting(name) for name in settings.INTEGERS}
    try:
        Model(default_model())
    except ModelError as error:
        settings.stop(f"{error}\nName a model with MODEL=/path/to/mnist.tflite.")
    settings.check_address(host, values["PORT"])
    with tempfile.TemporaryDirectory(prefix="mnist-api-") as shared:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        Path(shared, FLAG).write_bytes(b"\0")
        DrainingServer(
            "tp1_mnist_api.serving.server:worker",
            factory=True,
            interface=Interfaces.RSGI,
            address=host,
            port=values["PORT"],
            workers=values["WORKERS"],
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=10_000, max_buffer_size=65_536),
            websockets=False,
            respawn_failed_workers=True,
            workers_kill_timeout=30,
        ).serve()


if __name__ == "__main__":
    main()
