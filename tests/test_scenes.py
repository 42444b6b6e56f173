"""TP4's simulated cells: what the images promise, and that no threshold finds the cells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from labkit import Data
from tp4_unet_conv3d import floors, segmentation
from tp4_unet_conv3d.scenes import LEVELS, PARTS, SIZE, scenes, uneven_light
from tp4_unet_conv3d.segmentation import SegmentationPart


@pytest.fixture(scope="module")
def standard():
    return {part: scenes(part, 60) for part in PARTS}


def test_shapes_and_masks(standard):
    images, instances = standard["train"]
    assert images.shape == instances.shape == (60, SIZE, SIZE)
    assert images.dtype == instances.dtype == np.uint8
    for numbers in instances:
        present = np.unique(numbers)
        np.testing.assert_array_equal(present, np.arange(len(present)))  # 0, 1, 2, ...


@pytest.mark.parametrize("level", LEVELS)
def test_parts_share_no_image_and_repeat(level):
    parts = {part: scenes(part, 8, level) for part in PARTS}
    seen = [image.tobytes() for images, _ in parts.values() for image in images]
    assert len(set(seen)) == 24
    for again, first in zip(scenes("test", 4, level), parts["test"], strict=True):
        np.testing.assert_array_equal(again, first[:4])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="impossible"):
        scenes("train", 1, "impossible")
    with pytest.raises(ValueError, match="holdout"):
        scenes("holdout", 1)


def test_images_hold_what_they_promise(standard):
    _, instances = standard["train"]
    cells = [np.bincount(numbers.ravel())[1:] for numbers in instances]
    counts = np.array([len(areas) for areas in cells])
    areas = np.concatenate(cells)
    assert (counts == 0).any()  # empty images
    assert counts.max() >= 6
    assert (areas < 80).mean() > 0.1  # small cells
    touching = 0
    for numbers in instances:
        regions = ndimage.label(numbers > 0)[1]
        touching += numbers.max() - regions
    assert touching > 10


def test_brightness_says_nothing():
    """Cells and their surroundings have equal means: over images the difference averages out."""
    differences = []
    for image, numbers in zip(*scenes("train", 100), strict=True):
        far = ndimage.distance_transform_edt(numbers == 0)
        around = (far > 6) & (far < 14)  # beyond the dark halo
        if numbers.any():
            differences.append(image[numbers > 0].mean() - image[around].mean())
    spread = np.std(differences) / np.sqrt(len(differences))
    assert abs(np.mean(differences)) < 5  # of 255; a membrane is 40
    assert spread < 2


def test_light_is_uneven_within_its_bounds():
    light = uneven_light(np.random.default_rng(0), 0.45)
    assert light.mean() == pytest.approx(1, abs=1e-6)
    assert 0.25 < np.abs(light - 1).max() <= 0.45 + 1e-6


def test_thresholds_fail_where_they_should_and_only_there(standard):
    def floor_dice(drawn):
        parts = {
            part: SegmentationPart(
                images[..., None].astype(np.float32), instances, np.arange(len(images))
            )
            for part, (images, instances) in drawn.items()
        }
        found, masks = segmentation.floors(Data("simulated:cells", **parts))
        return {name: found[f"floor_{name}"] for name in masks}

    hard = floor_dice(standard)
    assert hard["all_background"] == 0
    assert max(hard.values()) < 0.6
    assert hard["threshold"] < 0.3
    assert hard["otsu"] < 0.3
    easy = floor_dice({part: scenes(part, 20, "easy") for part in PARTS})
    assert easy["otsu"] > 0.95
    assert easy["threshold"] > 0.9


def test_otsu_parts_two_humps():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(50, 5, 3000), rng.normal(150, 5, 1000)])
    assert 62 < floors.otsu(values) < 138
    # By definition: no other cut leaves less variance within the two classes.
    cuts = np.linspace(values.min(), values.max(), 257)[1:-1]
    within = [
        values[values < c].var() * (values < c).mean()
        + values[values >= c].var() * (values >= c).mean()
        for c in cuts
    ]
    best = floors.otsu(values)
    mine = values[values < best].var() * (values < best).mean()
    mine += values[values >= best].var() * (values >= best).mean()
    assert mine == pytest.approx(min(within), rel=0.01)


def test_local_contrast_is_a_local_deviation():
    image = np.zeros((1, 40, 40))
    image[0, :, 20:] = np.random.default_rng(0).normal(5, 2, (40, 20))
    found = floors.local_contrast(image, 3.0)[0]
    assert found[10:30, 2:8].max() < 0.1
    assert found[10:30, 32:].mean() == pytest.approx(2, rel=0.2)
