"""Decode a picture safely: what is too large or broken is refused before it takes memory."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from tp1_mnist_api.serving.inputs import InputError

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
OTHER_NAMES = ("image/jpg", "image/pjpeg", "image/x-png")
"""Names that programs use for the same formats."""
LIMIT_MILLIONS = {"PNG": 16, "WEBP": 16, "JPEG": 100, "progressive JPEG": 32}
"""Million pixels. A JPEG can be decoded smaller than it is, but a progressive one needs memory."""
LONGEST_SIDE = 800
"""Pixels of the longer side of what is kept of a picture."""


def decode(content: bytes) -> np.ndarray:
    """PNG, JPEG or WebP to (height, width, 3) uint8, its longer side at most `LONGEST_SIDE`.

    The size is read from the header. Raises `InputError`.
    """
    try:
        with warnings.catch_warnings():  # Pillow's own limit must not stand in the way of ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP"))
        with opened as picture:
            _check_size(picture)
            picture.draft("RGB", (LONGEST_SIDE, LONGEST_SIDE))  # JPEG: decode it smaller
            return _on_ground(_shrunk(picture))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        limit = LIMIT_MILLIONS["PNG"]
        raise InputError(
            f"picture: its pixels are more than {limit} million; {_remedy()}", "picture"
        ) from error
    except Exception as error:  # decoders of broken files raise nearly anything
        raise InputError(
            "picture: not a readable PNG, JPEG or WebP file; save it again as one of them",
            "picture",
        ) from error


def _check_size(picture: Image.Image) -> None:
    is_progressive = picture.info.get("progressive") or picture.info.get("progression")
    form = "progressive JPEG" if picture.format == "JPEG" and is_progressive else picture.format
    limit = LIMIT_MILLIONS[form]
    if picture.width * picture.height > limit * 1_000_000:
        raise InputError(
            f"picture: {picture.width}x{picture.height} pixels are more than {limit} million, the "
            f"limit for a {form}; {_remedy()}",
            "picture",
        )


def _remedy() -> str:
    return (
        "cut out the digit, reduce the picture (1000 pixels are plenty), or send a plain JPEG, "
        f"which may have {LIMIT_MILLIONS['JPEG']} million"
    )


def _shrunk(picture: Image.Image) -> Image.Image:
    """`picture` upright in L, RGB or RGBA, its longer side at most `LONGEST_SIDE` pixels."""
    if picture.mode.startswith("I"):
        # 16 bits, of which cameras and microscopes often use 10 or 12: Pillow would clip them.
        values = np.asarray(picture)
        bits = max(8, int(values.max()).bit_length())
        picture = Image.fromarray((values >> (bits - 8)).clip(0, 255).astype(np.uint8))
    elif picture.mode not in ("L", "RGB", "RGBA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    return ImageOps.exif_transpose(picture)


def _on_ground(picture: Image.Image) -> np.ndarray:
    """`picture` without transparency: dark ink is put on white, light ink on black."""
    if picture.mode != "RGBA":
        return np.asarray(picture.convert("RGB"))
    pixels = np.asarray(picture, np.float32)
    colour, alpha = pixels[..., :3], pixels[..., 3:] / 255
    ink_is_light = (colour * alpha).sum() > 0.5 * 255 * 3 * alpha.sum()
    ground = 0 if alpha.min() < 1 and ink_is_light else 255
    return (colour * alpha + ground * (1 - alpha)).round().astype(np.uint8)
