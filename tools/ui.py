"""Open MLflow's pages on the labs' store, with one worker and no job runners.

python tools/ui.py --port 5001
"""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

import labkit
from labkit import tracking


@dataclass(frozen=True)
class Config:
    """Where the pages are."""

    port: int = 5001
    """TCP port, 1 to 65535; 5000 is the API's."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port must be 1 to 65535, got {self.port}")


def main() -> None:
    """Make the store if it is missing, say where to look, serve until Ctrl-C."""
    config = labkit.parse(Config)
    if tracking.store_uri().startswith("http"):
        print(f"The runs are on {tracking.store_uri()} (MLFLOW_TRACKING_URI): open that page.")
        return
    experiment = tracking.open_store("tp1_mnist_api")
    base = f"http://127.0.0.1:{config.port}"
    print(f"TP1's runs: {base}/#/experiments/{experiment}?workflowType=machine_learning")
    print("The pages need some seconds to start. Ctrl-C stops them.", flush=True)
    # The job runners are for features that the labs don't use.
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--backend-store-uri", tracking.store_uri()]
    command += ["--host", "127.0.0.1", "--port", str(config.port)]
    with suppress(KeyboardInterrupt):
        raise SystemExit(subprocess.call(command, env=environment))


if __name__ == "__main__":
    main()
