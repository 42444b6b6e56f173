"""Augmentation against SciPy's slow, independent resampling."""

import numpy as np
import pytest
from scipy import ndimage

from tp1_mnist_api.augmentation import random_warp

STILL = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}


@pytest.fixture
def digits() -> np.ndarray:
    rng = np.random.default_rng(0)
    return ndimage.gaussian_filter(rng.uniform(0, 255, (6, 28, 28)), (0, 2, 2)).astype(np.uint8)


class Fixed(np.random.Generator):
    """Draws the upper limit instead of a random value."""

    def __init__(self):
        super().__init__(np.random.PCG64(0))

    def uniform(self, low, high, size):
        return np.full(size, high)


def test_no_strength_changes_nothing(digits):
    warped = random_warp(digits, np.random.default_rng(0), **STILL)
    np.testing.assert_allclose(warped, digits, atol=0.3)


@pytest.mark.parametrize("size", [(28, 28), (28, 20)])
def test_one_rotation_scaling_shear_and_shift_agree_with_scipy(digits, size):
    images = digits[:, : size[0], : size[1]]
    strength = {"rotation": 20.0, "scale": 0.1, "shear": 0.2, "shift": 1.5}
    warped = random_warp(images, Fixed(), **strength)

    angle = np.deg2rad(20)
    rotation = [[np.cos(angle), 0.2 - np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix = 1.1 * np.array(rotation)
    centre = (np.array(size) - 1) / 2
    offset = centre + 1.5 - matrix @ centre
    for image, result in zip(images.astype(float), warped, strict=True):
        expected = ndimage.affine_transform(image, matrix, offset, order=1, mode="nearest")
        np.testing.assert_allclose(result, expected, atol=0.5)


def test_elastic_displaces_smoothly_and_by_its_strength():
    ramp = np.tile(np.arange(28, dtype=np.float32), (400, 28, 1))  # value = column
    moved = random_warp(ramp, np.random.default_rng(0), **STILL, elastic=1.0) - ramp
    inner = moved[:, 8:20, 8:20]
    assert 0.4 < inner.std() < 1.2  # 1 at the grid's points, less between them
    assert np.abs(np.diff(inner, axis=1)).max() < 1.0


def test_same_generator_same_result_and_range_kept(digits):
    first = random_warp(digits, np.random.default_rng(5), elastic=1.0)
    second = random_warp(digits, np.random.default_rng(5), elastic=1.0)
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.min() >= digits.min()
    assert first.max() <= digits.max()
