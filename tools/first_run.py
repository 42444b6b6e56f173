"""Serve the model trained last on a free port, ask it once with curl, stop: the end of `make run`.

python tools/first_run.py
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass

import requests

import labkit
from labkit.machine import ROOT, free_port
from tp1_mnist_api.client import wait_until_ready


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def main() -> None:
    """Start, ask, print, stop."""
    labkit.parse(Config)
    trained = labkit.find_run("tp1_mnist_api.train_model")
    data = labkit.load_mnist("sample" if trained.data_source == "sample" else "auto")
    base = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, str(ROOT / "tp1_mnist_api" / "app.py"), "--port", str(port)]
    command += ["--model", str(trained.folder / "mnist.tflite")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(base, is_alive=lambda: server.poll() is None)
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
