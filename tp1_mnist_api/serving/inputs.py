"""From the body of a request to the model's input; what can't be used is refused with a reason."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

LIMIT_BATCH = 256
LEAST_DIFFERENCE = 25 / 3**0.5
"""Grey values nearer to the ground than this are not seen, as in a picture (ground.py)."""
NOTHING: Sequence[str] = ()
DARK = "dark on light: it was read as light on dark; send 255 minus each value"


class InputError(Exception):
    """The input can't be used; the message is for the client, `reason` one word for the metrics."""

    def __init__(self, message: str, reason: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.reason = reason


class _Usual(msgspec.Struct, forbid_unknown_fields=True):
    """The body that nearly every client sends: 784 integers and nothing else."""

    image: list[int]


_decode_usual = msgspec.json.Decoder(_Usual).decode


def read_image(body: bytes) -> tuple[np.ndarray, Sequence[str]]:
    """The JSON `body` of /predict as (1, 784) float32 in 0..1, and warnings; raises `InputError`.

    The usual body takes a short way, whose decoder and `bytes` check type and range in C. All
    others take the long one, which also finds the words to refuse them or to warn.
    """
    try:
        content = bytes(_decode_usual(body).image)
        pixels = np.frombuffer(content, np.uint8)
        # A black ground and five pixels of ink: nothing that `judged` would say a word about.
        if len(pixels) == 784 and content.count(0) > 392 and np.count_nonzero(pixels > 14) > 4:
            return pixels[None].astype(np.float32) / 255, NOTHING
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    pixels = read_pixels(_field(body, "image", "No image provided"), "image")[None]
    return pixels, judged(pixels[0], "image")


def read_images(body: bytes) -> tuple[np.ndarray, Sequence[str]]:
    """The JSON `body` of /predict/batch as (n, 784) float32 in 0..1, and warnings.

    Raises `InputError`.
    """
    images = _field(body, "images", "No images provided")
    if not isinstance(images, list):
        raise InputError(f"images: expected a list of images, got {type(images).__name__}", "shape")
    if not 1 <= len(images) <= LIMIT_BATCH:
        raise InputError(f"images: expected 1 to {LIMIT_BATCH} images, got {len(images)}", "shape")
    pixels = [read_pixels(image, f"images[{index}]") for index, image in enumerate(images)]
    warnings = [
        warning
        for index, image in enumerate(pixels)
        for warning in judged(image, f"images[{index}]")
    ]
    return np.stack(pixels), warnings


def judged(pixels: np.ndarray, name: str) -> list[str]:
    """Warnings about `pixels`, (784,) in 0..1; raises `InputError` where there is nothing to see.

    The ground is the median: no digit covers half of its 28x28 pixels.
    """
    values = pixels * 255
    ground = np.median(values)
    if np.sort(np.abs(values - ground))[-5] < LEAST_DIFFERENCE:
        raise InputError(
            f"{name}: nothing to see, all values are nearly the same; send a digit in 0..255",
            "empty",
        )
    return [f"{name}: {DARK}"] if ground > values.mean() and ground > 63 else []


def _field(body: bytes, name: str, missing: str) -> Any:
    """Value of `name` in the JSON object `body`; raises `InputError`."""
    try:
        content = json.loads(body)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(f"The body is not valid JSON, {where}", "not_json") from None
    except UnicodeDecodeError:
        raise InputError("The body is not valid JSON: it is not UTF-8 text", "not_json") from None
    except RecursionError:
        raise InputError("The body is not valid JSON: nested too deeply", "not_json") from None
    except ValueError:  # Python reads no integers of more than 4,300 digits
        raise InputError(f"{name}: a value is outside 0..255: an integer", "value") from None
    if not isinstance(content, dict | list):
        raise InputError(f'The body must be an object: {{"{name}": [...]}}', "not_json")
    if isinstance(content, list):
        raise InputError(missing, "no_image")
    if name not in content:
        found = ", ".join(f'"{str(key)[:30]}"' for key in list(content)[:5])
        hint = f': the key must be "{name}", got {found}' if found else ""
        raise InputError(missing + hint, "no_image")
    return content[name]


def read_pixels(image: Any, name: str) -> np.ndarray:
    """The JSON value `image` as (784,) float32 in 0..1; `name` stands in the messages.

    Allowed are 784 numbers, 28 rows of 28, or those with one axis of length 1 in front or, for
    rows, behind. Raises `InputError` for anything else.
    """
    values = image
    if isinstance(values, list) and len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    if isinstance(values, list) and values and all(isinstance(row, list) for row in values):
        lengths = {len(row) for row in values}
        if len(values) != 28 or lengths != {28}:
            longest = f"{min(lengths)} to {max(lengths)}" if len(lengths) > 1 else max(lengths)
            raise InputError(
                f"{name}: expected 784 values or 28 rows of 28, got {len(values)} rows of "
                f"{longest}; in numpy, image.ravel().tolist() gives the 784 values",
                "shape",
            )
        values = [value for row in values for value in row]
        if all(isinstance(value, list) and len(value) == 1 for value in values):
            values = [value[0] for value in values]
    if not isinstance(values, list):
        kind = type(image).__name__
        raise InputError(f"{name}: expected a list of 784 numbers, got {kind}", "shape")
    if len(values) != 784:
        raise InputError(f"{name}: expected one image of 784 values, got {len(values)}", "shape")
    for position, value in enumerate(values):
        if type(value) not in (int, float):  # a bool is an int for isinstance
            kind = type(value).__name__
            raise InputError(f"{name}: value {position} is not a number but {kind}", "value")
        if not (0 <= value <= 255):  # false for NaN too
            shown = repr(value) if isinstance(value, float) else "an integer"
            raise InputError(f"{name}: value {position} is outside 0..255: {shown}", "value")
    largest = max(values)
    if 0 < largest <= 1:
        raise InputError(
            f"{name}: largest value is {largest}; send 0..255, not divided by 255", "value"
        )
    return np.array(values, dtype=np.float32) / 255
