"""From the body of a request to the model's input; what can't be used is refused with a reason."""

import json
from typing import Any

import msgspec
import numpy as np

LIMIT_BATCH = 256


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


def read_image(body: bytes) -> np.ndarray:
    """The JSON `body` of /predict as (1, 784) float32 in 0..1; raises `InputError`.

    The usual body takes a short way, whose decoder and `bytes` check type and range in C. All
    others take the long one, which also finds the words to refuse them.
    """
    try:
        pixels = np.frombuffer(bytes(_decode_usual(body).image), np.uint8)
        if len(pixels) == 784 and pixels.max() != 1:  # a largest value of 1 may need a hint
            return pixels[None].astype(np.float32) / 255
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return read_pixels(_field(body, "image", "No image provided"), "image")[None]


def read_images(body: bytes) -> np.ndarray:
    """The JSON `body` of /predict/batch as (n, 784) float32 in 0..1; raises `InputError`."""
    images = _field(body, "images", "No images provided")
    if not isinstance(images, list):
        raise InputError(f"images: expected a list of images, got {type(images).__name__}", "shape")
    if not 1 <= len(images) <= LIMIT_BATCH:
        raise InputError(f"images: expected 1 to {LIMIT_BATCH} images, got {len(images)}", "shape")
    return np.stack([read_pixels(image, f"images[{index}]") for index, image in enumerate(images)])


def _field(body: bytes, name: str, missing: str) -> Any:
    """Value of `name` in the JSON object `body`; raises `InputError`."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise InputError("The body is not valid JSON", "not_json") from None
    if not isinstance(content, dict | list):
        raise InputError(f'The body must be an object: {{"{name}": [...]}}', "not_json")
    if name not in content or isinstance(content, list):
        raise InputError(missing, "no_image")
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
        if len(values) != 28 or any(len(row) != 28 for row in values):
            raise InputError(f"{name}: expected 784 values or 28 rows of 28, not these", "shape")
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
