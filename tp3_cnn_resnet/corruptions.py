"""Ten ways in which an image gets worse, five strengths each, for 32x32 images.

Kinds and names follow Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations" (ICLR 2019), which has fifteen. These are versions of our own with
strengths of our own, so accuracies under them can't be compared with those on CIFAR-10-C.
"""

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

import labkit
from labkit import figures

ndimage = labkit.lazy("scipy.ndimage")


def gaussian_noise(images: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Electronic noise: each value plus a normal one of standard deviation `deviation`."""
    return images + rng.normal(0, deviation, images.shape)


def shot_noise(images: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Little light: a white pixel catches `photons` photons on average, in each channel."""
    return rng.poisson(images * photons) / photons


def impulse_noise(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Broken pixels: that share of all values turns black or white."""
    chance = rng.random(images.shape)
    return np.where(chance < share / 2, 0, np.where(chance > 1 - share / 2, 1, images))


def gaussian_blur(images: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: a Gaussian of `sigma` pixels."""
    return ndimage.gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest")


def motion_blur(images: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A moving camera: the mean of `length` pixels along a line, one direction per image."""
    count, height, width, _ = images.shape
    angle = rng.uniform(0, np.pi, (count, 1, 1))
    down, right = np.sin(angle), np.cos(angle)
    longer = np.maximum(abs(down), abs(right))  # so that each step reaches another pixel
    padded = np.pad(images, ((0, 0), (length, length), (length, length), (0, 0)), "edge")
    image, row, column = np.ogrid[:count, length : length + height, length : length + width]
    steps = np.arange(length) - length // 2
    return sum(
        padded[
            image,
            row + np.rint(step * down / longer).astype(int),
            column + np.rint(step * right / longer).astype(int),
        ]
        for step in steps
    ) / len(steps)


def fog(images: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """White haze in clouds of several sizes hides a share `density` of the image, on average."""
    clouds = np.zeros(images.shape[:3])
    for size in (2, 4, 8):
        layer = ndimage.gaussian_filter(rng.normal(size=clouds.shape), (0, size, size), mode="wrap")
        clouds += layer / layer.std()
    clouds -= clouds.mean(axis=(1, 2), keepdims=True)
    haze = np.clip(density * (1 + 0.25 * clouds), 0, 1)[..., None]
    return (1 - haze) * images + 0.9 * haze


def brightness(images: np.ndarray, added: float, rng: np.random.Generator) -> np.ndarray:
    """Overexposed: `added` to every value; what passes white is lost."""
    return images + added


def contrast(images: np.ndarray, kept: float, rng: np.random.Generator) -> np.ndarray:
    """Pale: differences from the image's mean colour shrink to a share `kept`."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + kept * (images - mean)


def pixelate(images: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Enlarged from too few pixels: down to `side` x `side` by means, then up by repetition."""
    box, nearest = Image.Resampling.BOX, Image.Resampling.NEAREST
    return _one_by_one(images, lambda i: i.resize((side, side), box).resize(i.size, nearest))


def jpeg(images: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    """Compressed too much: JPEG of that `quality`, 1 to 95."""

    def worsen(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _one_by_one(images, worsen)


CORRUPTIONS: dict[str, tuple[Callable[..., np.ndarray], tuple[float, ...]]] = {
    "gaussian noise": (gaussian_noise, (0.02, 0.04, 0.06, 0.08, 0.10)),
    "shot noise": (shot_noise, (500, 250, 100, 60, 30)),
    "impulse noise": (impulse_noise, (0.01, 0.02, 0.04, 0.07, 0.10)),
    "gaussian blur": (gaussian_blur, (0.4, 0.6, 0.8, 1.0, 1.3)),
    "motion blur": (motion_blur, (2, 3, 4, 5, 6)),
    "fog": (fog, (0.15, 0.3, 0.45, 0.6, 0.75)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (contrast, (0.75, 0.5, 0.35, 0.25, 0.15)),
    "pixelate": (pixelate, (28, 24, 20, 16, 12)),
    "jpeg": (jpeg, (80, 60, 40, 25, 10)),
}
"""Function and its five strengths, from mild to severe, in the unit of the function's docstring."""

STRENGTHS = (1, 2, 3, 4, 5)


def corrupt(images: np.ndarray, kind: str, strength: int, seed: int) -> np.ndarray:
    """`images` (n, h, w, 3) uint8 made worse: uint8 of the same shape.

    `kind` is a key of `CORRUPTIONS`, `strength` 1 to 5. The same seed gives the same images.
    """
    function, values = CORRUPTIONS[kind]
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(kind), strength])
    worse = function(images.astype(np.float32) / 255, values[strength - 1], rng)
    return np.rint(255 * np.clip(worse, 0, 1)).astype(np.uint8)


def _one_by_one(images: np.ndarray, function: Callable) -> np.ndarray:
    """Pillow's `function` on each image of (n, h, w, 3) in 0..1."""
    pixels = np.rint(255 * images).astype(np.uint8)
    return np.stack([np.asarray(function(Image.fromarray(p))) for p in pixels]) / 255


def example_figure(image: np.ndarray, seed: int) -> figures.Figure:
    """`image` (h, w, 3) uint8 under every corruption: a row each, clean, then strength 1 to 5."""
    rows = [
        [image, *(corrupt(image[None], kind, strength, seed)[0] for strength in STRENGTHS)]
        for kind in CORRUPTIONS
    ]
    tiles = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    count, columns, height, width, _ = tiles.shape
    figure, axis = figures.subplots(size=(7.0, 0.88 * count + 0.5))
    axis.imshow(tiles.transpose(0, 2, 1, 3, 4).reshape(count * height, columns * width, 3))
    axis.set_yticks(height * (np.arange(count) + 0.5), labels=CORRUPTIONS)
    axis.set_xticks(width * (np.arange(columns) + 0.5), labels=["clean", *STRENGTHS])
    axis.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.grid(False)
    return figure


def robustness_figure(
    clean: float, curves: Mapping[str, list[float]], images: int
) -> figures.Figure:
    """Accuracy against strength, a panel for each corruption; 0 is the clean images'."""
    figure, axes = figures.subplots(2, 5, size=(12, 5.2))
    for axis, (kind, accuracies) in zip(axes.flat, curves.items(), strict=True):
        axis.plot((0, *STRENGTHS), [clean, *accuracies], marker="o", markersize=4)
        axis.axhline(clean, color="0.6", linestyle="--", linewidth=1)
        axis.axhline(0.1, color="0.6", linestyle=":", linewidth=1)
        axis.set(ylim=(0, 1), title=kind, xticks=(0, *STRENGTHS))
    for axis in axes[1]:
        axis.set_xlabel("strength")
    figure.supylabel(f"accuracy on {images} test images", fontsize=10)
    figure.suptitle("Dashed: clean images. Dotted: guessing.", fontsize=9, color="0.3")
    return figure
