"""How well does the API read pictures, whatever their size, colours, strokes and noise?

    python tp1_mnist_api/evaluate_pictures.py               # 1,000 test images, 7 minutes
    python tp1_mnist_api/evaluate_pictures.py --images 100  # a tenth of it

Each MNIST test image is drawn again as a picture file in fifteen ways and sent through the whole
API: decoding, finding the ink, MNIST's form, model. Accuracy on the unchanged 784 numbers stands
beside it. The settings of `serving/pictures.py` were chosen on training images (`--part training`).
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

import labkit
from labkit import figures
from labkit.arguments import fail
from tp1_mnist_api.app import create_app
from tp1_mnist_api.serving.model_file import Model, ModelError, default_model
from tp1_mnist_api.train_model import validation_indices


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
    """Ten images, to see that everything runs."""
    resume: bool = False
    """Don't repeat a finished evaluation of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, images=1)


# --- Drawing --------------------------------------------------------------------------------------


def drawing(
    digit: np.ndarray,
    rng: np.random.Generator,
    side: int = 280,
    stroke: int = 0,
    ink: Sequence[int] | None = (0, 0, 0),
    paper: Sequence[int] | None = (255, 255, 255),
    room: float = 1.0,
    shade: float = 0.0,
    noise: float = 0.0,
    blur: float = 0.0,
    ruled: bool = False,
) -> Image.Image:
    """`digit`, (28, 28) in 0..255, as an RGB picture of `side` x `side` pixels.

    `stroke` thickens (above 0) or thins each side of the lines by so many tenths of MNIST's pixel;
    `ink` and `paper` are RGB, None draws a random pair; `room` is the width of the picture over
    the digit's frame, the place is random; `shade` darkens one side; `noise` is the standard
    deviation of each channel; `blur` the radius in pixels; `ruled` adds pale blue lines.
    """
    fine = Image.fromarray(digit).resize((280, 280), Image.Resampling.BICUBIC)
    if stroke:
        turn = ImageFilter.MaxFilter if stroke > 0 else ImageFilter.MinFilter
        for _ in range(abs(stroke)):  # equals one wide filter, with fewer comparisons
            fine = fine.filter(turn(3))
    # Twice the contrast: a pen's edge is sharper than MNIST's.
    mask = fine.point(lambda value: min(255, max(0, 2 * value - 128)))
    frame = max(8, round(side / room))
    mask = mask.resize((frame, frame), Image.Resampling.LANCZOS)
    canvas = Image.new("L", (side, side))
    free = side - frame
    canvas.paste(mask, tuple(int(value) for value in rng.integers(0, free + 1, 2)))
    if ink is None or paper is None:
        ink, paper = random_colours(rng)
    ground = Image.new("RGB", (side, side), tuple(map(int, paper)))
    if ruled:
        for row in range(0, side, max(6, side // 9)):
            ground.paste((150, 180, 230), (0, row, side, row + 1))
    ground.paste(tuple(map(int, ink)), mask=canvas)
    if not (shade or noise or blur):
        return ground
    pixels = np.asarray(ground, np.float32)
    if shade:
        direction = rng.uniform(0, 2 * np.pi)
        down, right = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j] - 0.5
        slope = down * np.sin(direction) + right * np.cos(direction)
        pixels = pixels * (1 - shade * (0.5 + slope / 1.42))[..., None]
    if noise:
        pixels = pixels + rng.normal(0, noise, pixels.shape)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(blur)) if blur else picture


def random_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two RGB colours at least 120 apart, whichever of them is lighter."""
    while True:
        ink, paper = rng.integers(0, 256, (2, 3))
        if np.linalg.norm(ink - paper) >= 120:
            return ink, paper


def transparent(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """Black ink on nothing, as drawing programs save it."""
    ink = drawing(digit, rng).convert("L").point(lambda value: 255 - value)
    black = Image.new("L", ink.size)
    return Image.merge("RGBA", (black, black, black, ink))


WHITE, BLACK = (255, 255, 255), (0, 0, 0)
WAYS: dict[str, tuple[Callable, str, dict]] = {
    "white on black 28 px": (partial(drawing, side=28, ink=WHITE, paper=BLACK), "PNG", {}),
    "black on white 28 px": (partial(drawing, side=28), "PNG", {}),
    "16 px": (partial(drawing, side=16), "PNG", {}),
    "500 px": (partial(drawing, side=500), "PNG", {}),
    "2000 px": (partial(drawing, side=2000), "JPEG", {"quality": 85}),
    "small and off-centre": (partial(drawing, side=300, room=3), "PNG", {}),
    "any two colours": (partial(drawing, ink=None), "PNG", {}),
    "thin pen": (partial(drawing, stroke=-6), "PNG", {}),
    "thick pen": (partial(drawing, stroke=6), "PNG", {}),
    "JPEG of quality 10": (partial(drawing, side=120), "JPEG", {"quality": 10}),
    "noise of sd 25": (partial(drawing, noise=25), "JPEG", {"quality": 70}),
    "blurred": (partial(drawing, blur=6), "WEBP", {}),
    "light from one side": (partial(drawing, shade=0.5, noise=5), "JPEG", {}),
    "transparent background": (transparent, "PNG", {}),
    "ruled paper": (partial(drawing, room=1.5, ruled=True), "PNG", {}),
}


# --- Asking ---------------------------------------------------------------------------------------


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print the accuracies and return them."""
    for name, value in metrics.items():
        print(f"{name.replace('_', ' '):34} {value:.3f}")
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Draw, ask, count; return the accuracy of each way."""
    config = labkit.parse(Config, argv)
    data = labkit.load_mnist(config.data)
    if config.part == "test":
        images, labels = data.x_test, data.y_test
    else:
        _, validation = validation_indices(data.y_train, "stratified")
        images, labels = data.x_train[validation], data.y_train[validation]
    count = min(10 if config.smoke else config.images, len(images))
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    images, labels = images[chosen], labels[chosen]
    try:
        client = create_app(Model(config.model or default_model())).test_client()
    except ModelError as error:
        fail(str(error))

    with labkit.start_run(__file__, config, data.source, "litert-none-none") as run:
        if run.is_finished:
            return show(run.metrics)
        correct = [
            client.post("/predict", json={"image": image.tolist()}).json["prediction"] == label
            for image, label in zip(images, labels, strict=True)
        ]
        metrics = {
            "floor_majority": float(np.bincount(labels).max() / count),
            "accuracy_784_numbers": float(np.mean(correct)),
        }
        shown, titles = [], []
        for way, (draw, form, options) in tqdm(WAYS.items(), desc="ways", unit="way"):
            rng, right = np.random.default_rng(config.seed), []
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                picture = draw(image, rng)
                file = io.BytesIO()
                picture.save(file, form, **options)
                answer = client.post(
                    "/predict?seen=true", data=file.getvalue(), content_type=f"image/{form.lower()}"
                )
                right.append(answer.json.get("prediction") == label)
                if index == 0:
                    page = Image.new("RGBA", picture.size, "white")  # shows where nothing is
                    page.alpha_composite(picture.convert("RGBA"))
                    small = np.asarray(page.convert("RGB").resize((112, 112)))
                    seen = np.repeat(np.repeat(answer.json.get("seen", image), 4, 0), 4, 1)
                    shown.append(np.hstack([small, np.repeat(seen[..., None], 3, 2)]))
                    titles.append(way)
            metrics[f"accuracy_{way.replace(' ', '_')}"] = float(np.mean(right))
        run.log_metrics(metrics)
        run.save_figure("pictures", figures.image_grid(np.stack(shown), titles, columns=3))
        return show(metrics)


if __name__ == "__main__":
    main()
