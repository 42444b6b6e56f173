"""Serve the model trained last on a free port, ask it once with curl, stop: the end of `make run`.

python tools/first_run.py
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import requests

import labkit

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_healthy(server: subprocess.Popen, url: str, seconds: float = 30) -> None:
    """Return once `url` answers; leave with exit code 1 if the server ends or stays silent."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(url, timeout=1).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise SystemExit(f"error: the API did not answer on {url} within {seconds:.0f} s")


def main() -> None:
    """Start, ask, print, stop."""
    labkit.parse(Config)
    trained = labkit.find_run("tp1_mnist_api.train_model")
    data = labkit.load_mnist("sample" if trained.state["data_source"] == "sample" else "auto")
    base = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, str(ROOT / "tp1_mnist_api" / "app.py"), "--port", str(port)]
    command += ["--model", str(trained.folder / "mnist.tflite")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_healthy(server, f"{base}/health")
        body = json.dumps({"image": data.x_test[0].ravel().tolist()})
        print(f"API on {base}. Sending test image 0, a {data.y_test[0]}:")
        if shutil.which("curl"):
            print(
                f"  curl -X POST {base}/predict -H 'Content-Type: application/json' -d @image.json"
            )
            ask = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--data", "@-"]
            ask += ["--header", "Content-Type: application/json", f"{base}/predict"]
            answer = subprocess.run(
                ask, input=body, capture_output=True, text=True, check=True
            ).stdout
        else:  # a bare Debian has no curl
            headers = {"Content-Type": "application/json"}
            answer = requests.post(f"{base}/predict", body, headers=headers, timeout=10).text
        print(f"  {answer.strip()}")
        print(f"The model says {json.loads(answer)['prediction']}; the label is {data.y_test[0]}.")
    finally:
        server.terminate()
        server.wait(timeout=10)
    print(
        "\nThe API is stopped. What to do next:\n"
        "  make ui      compare the runs in MLflow, http://127.0.0.1:5001\n"
        "  make serve   keep the API running on http://127.0.0.1:5000\n"
        "  make help    everything else; tp1_mnist_api/README.md is the first lab"
    )


if __name__ == "__main__":
    main()
