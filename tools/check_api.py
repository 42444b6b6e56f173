"""Check a running API from the outside: answers, pictures, refusals, metrics.

python tools/check_api.py --url http://127.0.0.1:5000
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

import labkit
from tp1_mnist_api.client import session_for, wait_until_ready


@dataclass(frozen=True)
class Config:
    """What to check."""

    url: str = "http://127.0.0.1:5000"
    """Where the API is."""
    images: int = 200
    """Digits to send, evenly spaced over the test images."""
    lowest_accuracy: float = 0.85
    """Least share of right answers; the sample's scanned digits are harder than MNIST's."""


def check(condition: bool, what: str) -> None:
    """Print `what` when it holds; leave with exit code 1 when it doesn't."""
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print(f"ok  {what}")


def main(argv: list[str] | None = None) -> None:
    """Check it all; exit code 1 at the first thing that is wrong."""
    config = labkit.parse(Config, argv)
    data = labkit.load_mnist("auto")
    chosen = np.linspace(0, len(data.x_test) - 1, config.images).astype(int)
    images, labels = data.x_test[chosen], data.y_test[chosen]
    wait_until_ready(config.url)
    check(True, "ready")
    with session_for(config.url) as session:
        predict = f"{config.url}/predict"
        answers = [
            session.post(predict, json={"image": image.tolist()}, timeout=5).json()
            for image in images
        ]
        accuracy = np.mean([answer["prediction"] for answer in answers] == labels)
        check(accuracy >= config.lowest_accuracy, f"{accuracy:.3f} of {len(labels)} right")
        batch = session.post(
            f"{predict}/batch", json={"images": images.tolist()}, timeout=20
        ).json()
        single = [answer["probabilities"][0] for answer in answers]
        check(batch["probabilities"] == single, "a batch gives the same answers")
        file = io.BytesIO()
        Image.fromarray(255 - images[0]).resize((280, 280)).save(file, "PNG")
        picture = session.post(predict, files={"image": file.getvalue()}, timeout=5).json()
        check("prediction" in picture, "a picture is read")
        refused = session.post(predict, json={"image": [0] * 783}, timeout=5)
        check(refused.status_code == 400 and "783" in refused.json()["error"], "783 values refused")
        check(session.get(f"{config.url}/model", timeout=5).json()["sha256"] != "", "model card")
        metrics = session.get(f"{config.url}/metrics", timeout=5).text
        check("mnist_requests_total" in metrics, "metrics")
        for page in ("/", "/docs", "/openapi.json"):
            check(session.get(config.url + page, timeout=5).ok, f"page {page}")


if __name__ == "__main__":
    main()
