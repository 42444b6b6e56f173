"""Open MLflow's pages on the labs' store, with one worker and no job runners.

python tools/ui.py --port 5001
"""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

import labkit
from labkit import machine, tracking
from labkit.arguments import fail


@dataclass(frozen=True)
class Config:
    """Where the pages are."""

    port: int = 5001
    """TCP port, 1 to 65535; 5000 is the API's."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port must be 1 to 65535, got {self.port}")


def main(argv: list[str] | None = None) -> None:
    """Make the store if it is missing, say where to look, serve until Ctrl-C or SIGTERM."""
    config = labkit.parse(Config, argv)
    for name in ("SIGTERM", "SIGHUP"):  # so that the server ends with us; nohup stays as it is
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    refuse_taken(config.port)
    try:
        uri = tracking.store_uri()
        if uri.startswith("http"):
            shown = tracking.without_password(uri)
            print(f"The runs are on {shown} (MLFLOW_TRACKING_URI): open that page.")
            return
        experiment = tracking.open_store("tp1_mnist_api")
    except tracking.StoreError as error:
        fail(str(error))
    if any((machine.home() / "mlruns").glob("*/meta.yaml")):
        print("note: ./mlruns holds runs of an older MLflow, which this page does not show;")
        print(f"`mlflow migrate-filestore --source . --target {uri}` brings them over.")
    base = f"http://127.0.0.1:{config.port}"
    print(f"TP1's runs: {base}/#/experiments/{experiment}?workflowType=machine_learning")
    print("The pages need some seconds to start. Ctrl-C stops them.", flush=True)
    raise SystemExit(serve(uri, config.port))


def refuse_taken(port: int) -> None:
    """Leave with exit code 2 when something listens on `port` already."""
    with socket.socket() as probe:
        if sys.platform != "win32":  # there it would let two programs share a port
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            fail(f"--port {port} can't be used ({error.strerror}): choose another one")


def serve(uri: str, port: int) -> int:
    """Run MLflow's server on `port` until it ends; its exit code, 0 after Ctrl-C."""
    # The job runners are for features that the labs don't use.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.setdefault("PYTHONWARNINGS", "ignore:starlette.middleware.wsgi is deprecated")
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(port)]
    # A session of its own, as it starts further processes: they are all ended together.
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for end in ("SIGTERM", "SIGKILL"):
            if sys.platform == "win32":
                server.terminate()
            else:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, getattr(signal, end))
            with suppress(subprocess.TimeoutExpired):
                server.wait(10)
                break
        tracking.forget_stray_folder(uri)


if __name__ == "__main__":
    main()
