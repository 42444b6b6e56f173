"""Serve the MNIST API on a free port, ask it once with curl, stop: the end of `make run`.

The model trained last answers if it saw real data; else the one that `make serve` would serve does.

python tools/first_run.py
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import labkit
from labkit.machine import ROOT, free_port
from tp1_mnist_api.client import session_for, wait_until_ready
from tp1_mnist_api.serving.model_file import choice, saw_real_data


@dataclass(frozen=True)
class Config:
    """Nothing to set."""


def chosen(trained: labkit.Run) -> tuple[Path, str]:
    """The model to serve, and in words which it is and why."""
    model = trained.folder / "mnist.tflite"
    if saw_real_data(model):
        return model, "The model just trained answers: it was trained on real data."
    model, reason = choice()
    if not saw_real_data(model):
        return model, f"{model} answers, {reason}. It was trained on the sample: expect mistakes."
    return model, (
        "Your model was trained on the sample, 1,437 digits, because the real MNIST was not to be "
        f"had.\nThe model that answers is {model}, {reason}."
    )


def main() -> None:
    """Start, ask, print, stop."""
    labkit.parse(Config)
    trained = labkit.find_run("tp1_mnist_api.train_model")
    model, words = chosen(trained)
    print(words)
    data = labkit.load_mnist("sample" if trained.data_source == "sample" else "auto")
    base = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, str(ROOT / "tp1_mnist_api" / "app.py"), "--port", str(port)]
    command += ["--model", str(model)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until_ready(base, is_alive=lambda: server.poll() is None)
        body = json.dumps({"image": data.x_test[0].ravel().tolist()})
        print(f"API on {base}. Sending test image 0, a {data.y_test[0]}:")
        if shutil.which("curl"):
            print(
                f"  curl {base}/predict -H 'Content-Type: application/json' -d '{{\"image\": ...}}'"
            )
            ask = ["curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--data", "@-"]
            ask += ["--noproxy", "127.0.0.1"]
            ask += ["--header", "Content-Type: application/json", f"{base}/predict"]
            answer = subprocess.run(
                ask, input=body, capture_output=True, text=True, check=True
            ).stdout
        else:  # a bare Debian has no curl
            headers = {"Content-Type": "application/json"}
            with session_for(base) as session:
                answer = session.post(f"{base}/predict", body, headers=headers, timeout=10).text
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
