"""How well does the API read pictures, whatever their size, colours, strokes and noise?

    python tp1_mnist_api/evaluate_pictures.py               # 1,000 test images, 15 minutes
    python tp1_mnist_api/evaluate_pictures.py --images 100  # a tenth of it

Each MNIST test image is drawn again as a picture file in twenty-five ways and sent through the
whole API: decoding, frames, finding the ink, MNIST's form, model. Accuracy on the unchanged 784
numbers stands beside it, and the share of pictures that were answered with a warning. The settings
of `serving/` were chosen on drawn validation images (`--part training`).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from flask.testing import FlaskClient
from PIL import Image
from tqdm import tqdm

import labkit
from labkit import figures
from labkit.arguments import fail
from tp1_mnist_api import digits
from tp1_mnist_api.app import create_app
from tp1_mnist_api.drawings import WAYS, draw_file
from tp1_mnist_api.serving.model_file import Model, ModelError, default_model


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    model: Path | None = None
    """Exported model; the one that the API serves if not given."""
    images: int = 1000
    """Images, evenly spaced, that are drawn in each way; 1 to all."""
    part: Literal["test", "training"] = "test"
    """test: the final figure; training: the validation images, to choose settings."""
    data: labkit.DataChoice = "auto"
    """auto: real MNIST or, without it, a sample; real: real or an error; sample: 1,797 digits."""
    seed: int = 0
    """Seed of colours, places and noise."""
    smoke: bool = False
    """Three images, to see that everything runs."""
    resume: bool = False
    """Don't repeat a finished evaluation of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, images=1)


def ask_about(
    client: FlaskClient, way: str, part: labkit.Part, seed: int
) -> tuple[float, float, np.ndarray]:
    """On the digits of `part` drawn in a `way`: accuracy, share of warnings, the first picture.

    That is (112, 224, 3): the file, and beside it the 28x28 pixels that the model saw of it. A
    refused picture counts as a wrong answer.
    """
    rng, right, warned, shown = np.random.default_rng(seed), [], [], None
    for image, label in zip(part.x, part.y, strict=True):
        content, media_type = draw_file(way, image, rng)
        answer = client.post("/predict?seen=true", data=content, content_type=media_type).json
        right.append(answer.get("prediction") == label)
        warned.append("warnings" in answer)
        if shown is None:
            picture = Image.open(io.BytesIO(content)).convert("RGBA")
            page = Image.new("RGBA", picture.size, "white")  # shows where nothing is
            page.alpha_composite(picture)
            small = np.asarray(page.convert("RGB").resize((112, 112)))
            seen = np.repeat(np.repeat(answer.get("seen", image), 4, 0), 4, 1)
            shown = np.hstack([small, np.repeat(seen[..., None], 3, 2)])
    return float(np.mean(right)), float(np.mean(warned)), shown


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print the accuracies and return them."""
    for name, value in metrics.items():
        print(f"{name.replace('_', ' '):34} {value:.3f}")
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Draw, ask, count; return the accuracy of each way."""
    config = labkit.parse(Config, argv)
    data = digits.load(config.data, False, "stratified")
    part = data.test if config.part == "test" else data.validation
    count = min(3 if config.smoke else config.images, len(part))
    chosen = np.linspace(0, len(part) - 1, count).astype(int)
    part = labkit.Part(part.x[chosen], part.y[chosen])
    try:
        client = create_app(Model(config.model or default_model())).test_client()
    except ModelError as error:
        fail(str(error))

    with labkit.start_run(__file__, config, data.source, "litert-none-none") as run:
        if run.is_finished:
            return show(run.metrics)
        correct = [
            client.post("/predict", json={"image": image.tolist()}).json["prediction"] == label
            for image, label in zip(part.x, part.y, strict=True)
        ]
        metrics = {
            "floor_majority": float(np.bincount(part.y).max() / count),
            "accuracy_784_numbers": float(np.mean(correct)),
            "images": float(count),
        }
        shown = []
        for way in tqdm(WAYS, desc="ways", unit="way"):
            name = way.replace(" ", "_")
            accuracy, warned, picture = ask_about(client, way, part, config.seed)
            metrics |= {f"accuracy_{name}": accuracy, f"warned_{name}": warned}
            shown.append(picture)
        run.log_metrics(metrics)
        run.save_figure("pictures", figures.image_grid(np.stack(shown), list(WAYS), columns=3))
        return show(metrics)


if __name__ == "__main__":
    main()
