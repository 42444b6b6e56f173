"""Images for style transfer: any file in, sizes, likeness; what came out, side by side."""

import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import labkit
from labkit import figures, results
from labkit.arguments import fail

tf = labkit.lazy("tensorflow")

LARGEST_FILE = 100_000_000  # pixels
SMALLEST_SIDE = 32  # after four poolings 2 pixels are left, the least that can be mirrored
SCALES = 3
STEPS_PER_RECORD = 5


def read_image(path: Path, field: str, longest: int) -> Image.Image:
    """The image in `path`, upright and RGB. Usage: `read_image(config.content, "content", 256)`.

    A camera's EXIF orientation is applied, transparency is laid on white, palettes, greys, 16-bit
    greys and CMYK become RGB. A file that is missing, damaged, no image, too large (100 million
    pixels) or so thin that its shorter side has less than 32 pixels when the longest has `longest`
    leaves with exit code 2; `field` is the flag to name.
    """
    if not path.exists():
        fail(f"--{field} {path} does not exist")
    try:
        with warnings.catch_warnings():  # Pillow's own limits, as this script's error
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with path.open("rb") as file, Image.open(file) as opened:
                if math.prod(opened.size) > LARGEST_FILE:
                    raise Image.DecompressionBombError(f"{opened.width}x{opened.height}")
                image = ImageOps.exif_transpose(opened)  # reads the pixels
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        fail(f"--{field} {path} is larger than {LARGEST_FILE // 10**6} million pixels: {error}")
    except (OSError, EOFError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        fail(f"--{field} {path} is no image that can be read: {reason}")
    if (shorter := min(shape_at(image, longest))) < SMALLEST_SIDE:
        fail(
            f"--{field} {path} is {image.width}x{image.height}: with --size {longest} its shorter "
            f"side would have {shorter} pixels, and {SMALLEST_SIDE} are needed"
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.clip(np.asarray(image, np.float32) / 257, 0, 255)
        image = Image.fromarray(grey.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def shape_at(image: Image.Image, longest: int) -> tuple[int, int]:
    """Height and width of `image` when its longest side has `longest` pixels."""
    ratio = longest / max(image.size)
    return max(1, round(image.height * ratio)), max(1, round(image.width * ratio))


def plan(sides: tuple[int, int], steps: int) -> list[tuple[int, int]]:
    """Pairs (longest side, steps), each with up to five steps, from coarse to fine.

    `sides` are those of the result. Sizes are halved while the shorter side keeps 32 pixels, at
    most to a quarter; they share the steps evenly.
    """
    sizes = [max(sides)]
    while len(sizes) < min(SCALES, steps) and min(sides) // 2 ** len(sizes) >= SMALLEST_SIDE:
        sizes.insert(0, max(sides) // 2 ** len(sizes))
    pieces = []
    for longest, part in zip(sizes, np.array_split(np.arange(steps), len(sizes)), strict=True):
        for start in range(0, len(part), STEPS_PER_RECORD):
            pieces.append((longest, len(part[start : start + STEPS_PER_RECORD])))
    return pieces


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The image as (1, height, width, 3) float32 in 0..1."""
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(small, np.float32)[None] / 255


def to_image(pixels: np.ndarray) -> Image.Image:
    """(1, height, width, 3) in 0..1 as an 8-bit image."""
    return Image.fromarray(np.rint(pixels[0] * 255).astype(np.uint8))


def ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Structural similarity of the brightness of two images (1, h, w, 3) in 0..1; 1 if equal.

    Wang et al., "Image Quality Assessment" (2004), 11x11 windows: edges and local contrast count,
    colours do not.
    """
    greys = [tf.image.rgb_to_grayscale(tf.cast(image, tf.float32)) for image in (first, second)]
    return float(tf.image.ssim(*greys, max_val=1.0)[0])


# --- What came out -------------------------------------------------------------------------------


def panel_figure(images: Sequence[np.ndarray], label: str) -> figures.Figure:
    """Content, style and result side by side; the title names the network."""
    figure, axes = figures.subplots(1, 3, size=(12, 3.6))
    for axis, image, title in zip(axes, images, ("content", "style", "result"), strict=True):
        axis.imshow(image[0])
        axis.axis("off")
        axis.set_title(title)
    figure.suptitle(f"features: {label}", fontsize=9, color="0.3")
    return figure


def curves_figure(
    history: dict[str, list[float]], style_weight: float, tv_weight: float
) -> figures.Figure:
    """The loss and its weighted parts against the step, with a line where the size changes."""
    weights = {"style_loss": style_weight, "total_variation": tv_weight}
    figure, axis = figures.subplots(size=(7, 4))
    steps = history["step"]
    for name in ("loss", "content_loss", "style_loss", "total_variation"):
        values = weights.get(name, 1) * np.array(history[name])
        if values.any():
            axis.plot(steps, values, label=name.replace("_", " "), marker="o", markersize=2)
    for index in np.flatnonzero(np.diff(history["size"])):
        axis.axvline(steps[index] + 0.5, color="0.6", linestyle="--")
    sizes = " → ".join(f"{size:.0f}" for size in dict.fromkeys(history["size"]))
    axis.set(xlabel="step", yscale="log", title=f"Weighted losses, {sizes} pixels")
    axis.legend()
    return figure


def largest_rise(history: dict[str, list[float]]) -> float:
    """Largest relative rise of the loss from one record to the next of the same size; 0 if none."""
    loss, size = np.array(history["loss"]), np.array(history["size"])
    rises = loss[1:] / loss[:-1] - 1
    return float(rises[size[1:] == size[:-1]].max(initial=0))


def table(metrics: dict[str, float]) -> str:
    """The result beside what an unchanged image gets, as a Markdown table."""
    lines = (
        ("style loss", "style_loss", "floor_style_loss_of_content", "content"),
        ("content loss", "content_loss", "floor_content_loss_of_style", "style"),
        ("SSIM against the content", "ssim_content", "floor_ssim_of_style", "style"),
    )
    rows = [[n, f"{metrics[m]:.4f}", f"{metrics[f]:.4f} ({image})"] for n, m, f, image in lines]
    beside = results.markdown_table(["", "result", "floor (the unchanged image)"], rows)
    return (
        f"{beside}\nLosses are shares of the target's own square: 0 is equal, 1 as far away as "
        "nothing at all."
    )
