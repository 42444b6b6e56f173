"""Images for style transfer: any file in, upright RGB of any size out, and their likeness."""

import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import labkit
from labkit.arguments import fail

tf = labkit.lazy("tensorflow")

LARGEST_FILE = 100_000_000  # pixels


def read_image(path: Path, field: str) -> Image.Image:
    """The image in `path`, upright and RGB. Usage: `read_image(config.content, "content")`.

    A camera's EXIF orientation is applied, transparency is laid on white, palettes, greys, 16-bit
    greys and CMYK become RGB. A file that is missing, damaged, no image or too large (100 million
    pixels) leaves with exit code 2; `field` is the flag to name.
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
