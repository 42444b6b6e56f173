"""Slices of MRI: read, split, normalised, sampled, moved, scored; each against another way."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain

import keras
import nibabel
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from labkit.files import DataError
from tp6_real_world.brain_tumor import data, decathlon, floors, metrics, model, preparation

RNG = np.random.default_rng(0)


# --- Metrics -------------------------------------------------------------------------------------


def test_dice_and_iou_of_patients_are_those_of_a_loop():
    truth, predicted = RNG.random((2, 7, 6, 6)) < 0.3
    groups = np.array([4, 4, 4, 9, 9, 2, 2])
    truth[groups == 2] = False
    dice, iou = metrics.overlap(predicted, truth, groups)
    for place, group in enumerate((2, 4, 9)):
        own = groups == group
        both = sum(
            bool(p and t) for p, t in zip(predicted[own].ravel(), truth[own].ravel(), strict=True)
        )
        sizes = int(predicted[own].sum()) + int(truth[own].sum())
        if group == 2:
            assert np.isnan(dice[place])
            assert np.isnan(iou[place])
        else:
            assert dice[place] == pytest.approx(2 * both / sizes)
            assert iou[place] == pytest.approx(both / (sizes - both))


def test_auroc_is_scikit_learns_with_ties():
    scores, truth = RNG.integers(0, 6, 200), RNG.random(200) < 0.4
    assert metrics.auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    assert metrics.auroc(np.ones(5), np.array([1, 0, 1, 0, 0])) == 0.5
    assert np.isnan(metrics.auroc(np.arange(3), np.ones(3)))


def test_the_cut_keeps_the_asked_specificity_and_no_lower_cut_does():
    scores, truth = RNG.normal(size=300), RNG.random(300) < 0.3
    cut = metrics.cut_at_specificity(scores, truth, 0.9)
    assert metrics.alarms(scores, truth, cut)[1] >= 0.9
    lower = np.max(scores[(scores < cut) & ~truth])
    assert metrics.alarms(scores, truth, lower)[1] < 0.9


def test_scores_of_slices_are_the_mean_of_the_highest_pixels():
    probabilities = RNG.random((3, 32, 32))
    top = np.sort(probabilities.reshape(3, -1), axis=1)[:, -2:].mean(axis=1)  # 1024 / 512
    np.testing.assert_allclose(metrics.slice_scores(probabilities), np.log(top / (1 - top)))


def test_the_interval_draws_patients_not_slices():
    """Ten patients of a hundred equal slices are ten observations, not a thousand."""
    values = np.repeat(np.linspace(0, 1, 10), 100)
    groups = np.repeat(np.arange(10), 100)
    low, high = metrics.interval(lambda rows: float(values[rows].mean()), groups)
    of_slices = metrics.interval(lambda rows: float(values[rows].mean()), np.arange(1000))
    assert high - low > 5 * (of_slices[1] - of_slices[0])
    expected = np.std(np.linspace(0, 1, 10)) / np.sqrt(10)
    assert (high - low) / 3.92 == pytest.approx(expected, rel=0.15)


# --- Losses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [False, True])
def test_losses_are_those_of_numpy(empty):
    truth = (RNG.random((4, 5, 6, 1)) < (0 if empty else 0.4)).astype(np.float32)
    logits = RNG.normal(size=truth.shape).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(float)))
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean(axis=(1, 2, 3))
    sums = (truth.sum(axis=(1, 2, 3)), p.sum(axis=(1, 2, 3)))
    dice = 1 - (2 * (truth * p).sum(axis=(1, 2, 3)) + 1) / (sum(sums) + 1)
    for name, expected in (("bce", entropy), ("dice", dice), ("bce+dice", entropy + dice)):
        found = keras.ops.convert_to_numpy(model.LOSSES[name](truth, logits))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_pixel_that_is_altogether_wrong_has_a_gradient():
    import tensorflow as tf

    logits = tf.constant(np.full((1, 1, 1, 1), 40.0, np.float32))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = model.cross_entropy(tf.zeros((1, 1, 1, 1)), logits)
    assert float(tf.squeeze(tape.gradient(loss, logits))) == pytest.approx(1.0)


def test_the_unet_learns_sixteen_slices_by_heart():
    keras.utils.set_random_seed(0)
    parts = data.phantom_parts(32, smoke=True)["train"]
    x = np.concatenate([preparation.normalise(each.images, "zscore") for each in parts])
    y = np.concatenate([each.masks for each in parts])
    chosen = np.flatnonzero(y.any(axis=(1, 2)))[:16]
    x, y = x[chosen], y[chosen]
    network = model.build_unet(32, 3, 8, 1)
    network.compile(keras.optimizers.Adam(1e-2), model.cross_entropy_and_dice, jit_compile=False)
    fifty = (np.tile(each, (50, 1, 1, 1)) for each in (x, y[..., None].astype(np.float32)))
    network.fit(*fifty, batch_size=16, shuffle=False, verbose=0)
    predicted = network.predict(x, verbose=0)[..., 0] > 0
    assert np.mean(metrics.overlap(predicted, y, np.arange(len(y)))[0]) > 0.8


# --- Preparation ---------------------------------------------------------------------------------


def volume_with_brain() -> np.ndarray:
    volume = np.zeros((4, 16, 16, 3))
    volume[:, 3:13, 3:13] = RNG.normal(100, 15, (4, 10, 10, 3))
    return volume


def test_one_bright_voxel_moves_everything_under_min_max_and_nothing_under_the_others():
    volume = volume_with_brain()
    hot = preparation.with_hot_voxel(volume, np.zeros(4, int))
    assert (hot[0, 0, 0] == 2 * volume.max(axis=(0, 1, 2)).astype(np.float32)).all()
    inside = (slice(None), slice(3, 13), slice(3, 13))
    moved = {
        how: np.abs(preparation.normalise(hot, how) - preparation.normalise(volume, how))[inside]
        for how in ("zscore", "percentile", "minmax")
    }
    assert moved["minmax"].mean() > 0.3
    assert moved["zscore"].mean() < 0.5  # of deviations, by one voxel among 401
    assert moved["percentile"].mean() < 0.02


@pytest.mark.parametrize("how", ["zscore", "percentile", "minmax"])
def test_normalised_volumes_do_not_depend_on_the_scanners_scale(how):
    volume = volume_with_brain()
    first, second = (preparation.normalise(scale * volume, how) for scale in (1, 37.5))
    np.testing.assert_allclose(first, second, atol=1e-4)
    blank = preparation.normalise(np.zeros((2, 8, 8, 1)), how)
    assert np.isfinite(blank).all()


def test_neighbours_come_from_the_same_patient():
    images = np.arange(5, dtype=np.float32)[:, None, None, None] * np.ones((5, 2, 2, 1), np.float32)
    groups = np.array([7, 7, 7, 3, 3])
    found = preparation.with_neighbours(images, groups, 1, 0)[:, 0, 0]
    expected = [[0, 0, 1], [1, 0, 2], [2, 1, 2], [3, 3, 4], [4, 3, 4]]  # own, below, above
    np.testing.assert_array_equal(found, expected)
    assert preparation.with_neighbours(images, groups, 2, 0).shape == (5, 2, 2, 5)


@pytest.mark.parametrize(
    ("policy", "share"), [("all", 0.3), ("balanced", 0.6 / 1.3), ("tumour", 1)]
)
def test_policies_show_slices_at_their_shares_and_equally_many(policy, share):
    masks = np.zeros((200, 2, 2), bool)
    masks[:60] = True
    draw = preparation.sampler(masks, policy)
    drawn = draw(np.random.default_rng(0))
    assert len(drawn) == 200
    assert np.mean(drawn < 60) == pytest.approx(share, abs=0.01)
    counts = np.bincount(drawn, minlength=200)
    assert np.ptp(counts[:60]) <= 1
    assert (draw(np.random.default_rng(1)) != drawn).any()


def test_image_and_mask_move_together_and_background_stays():
    images, masks = np.full((6, 32, 32, 2), -3.0, np.float32), np.zeros((6, 32, 32, 1), np.float32)
    images[:, 10:20, 8:20], masks[:, 10:20, 8:20] = 2.0, 1.0
    moved, moved_masks = preparation.move_head(images, masks, np.random.default_rng(0))
    bright = moved > moved.mean(axis=(1, 2), keepdims=True)
    for channel in range(2):
        dice, _ = metrics.overlap(bright[..., channel], moved_masks[..., 0] > 0, np.arange(6))
        assert dice.min() > 0.9
    assert set(np.unique(moved_masks)) == {0, 1}
    assert (moved_masks != masks).any(axis=(1, 2, 3)).all()
    corner = moved[:, 0, 0]
    assert (corner < -1.5).all()


# --- Parts ---------------------------------------------------------------------------------------


def patients_of(found) -> list[set]:
    return [set(part.names) for part in (found.train, found.validation, found.test)]


def test_no_patient_is_in_two_parts_unless_the_split_is_by_slice():
    train, validation, test = patients_of(data.load("sample", smoke=True))
    assert not train & validation | train & test | validation & test
    mixed = data.load("sample", smoke=True, split="slice")
    train, validation, test = patients_of(mixed)
    assert test & train
    assert validation & train
    assert len(mixed.train) == len(data.load("sample", smoke=True).train)


@pytest.mark.realdata
@pytest.mark.usefixtures("real_data")
def test_real_patients_are_in_one_part_each_and_are_those_of_tp4():
    from labkit import lgg

    found = data.load("real", size=32)
    train, validation, test = patients_of(found)
    assert not train & validation | train & test | validation & test
    theirs = {name: set(part.patients) for name, part in lgg.load_slices()[0].items()}
    assert {"train": train, "validation": validation, "test": test} == theirs
    pixels = [{each.tobytes() for each in part.x if each.any()} for part in
              (found.train, found.validation, found.test)]  # fmt: skip
    assert not pixels[0] & pixels[1] | pixels[0] & pixels[2] | pixels[1] & pixels[2]


def lgg_tree(root, patients=6):
    for index in range(patients):
        folder = root / "kaggle_3m" / f"P{index}"
        folder.mkdir(parents=True)
        for place in (2, 10, 9):  # in numbers' order: 2, 9, 10
            image = np.full((64, 64, 3), 10 * place, np.uint8)
            mask = np.zeros((64, 64), np.uint8)
            mask[: 4 * place, :20] = 255
            Image.fromarray(image).save(folder / f"P{index}_{place}.tif")
            Image.fromarray(mask).save(folder / f"P{index}_{place}_mask.tif")
    return root / "kaggle_3m"


def test_lgg_slices_are_read_in_their_order_and_shrunk(tmp_path):
    found, digest = data.read_lgg(lgg_tree(tmp_path), 32)
    assert sorted(patient.name for part in found.values() for patient in part) == [
        f"P{index}" for index in range(6)
    ]
    patient = found["train"][0]
    assert patient.images.shape == (3, 32, 32, 3)
    assert [int(each[0, 0, 0]) for each in patient.images] == [20, 90, 100]
    assert [int(each.sum()) for each in patient.masks] == [4 * 10, 18 * 10, 20 * 10]
    assert len(digest) == 64


@pytest.mark.parametrize("kind", ["lonely", "damaged", "name", "wide"])
def test_lgg_files_that_are_wrong_are_named(tmp_path, kind):
    root = lgg_tree(tmp_path)
    if kind == "lonely":
        (root / "P3" / "P3_9_mask.tif").unlink()
        named = "P3_9_mask"
    elif kind == "damaged":
        (root / "P3" / "P3_9.tif").write_bytes(b"II*\x00")
        named = "P3_9.tif"
    elif kind == "name":
        (root / "P3" / "P3_9.tif").rename(root / "P3" / "nine.tif")
        named = "nine"
    else:
        Image.new("RGB", (64, 32)).save(root / "P3" / "P3_9.tif")
        named = "P3_9.tif"
    with pytest.raises(DataError, match=named):
        data.read_lgg(root, 32)


# --- Decathlon -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def task01(tmp_path_factory):
    """Eight patients in the official layout: brains brighter with the slice, labels 0 to 3."""
    root = tmp_path_factory.mktemp("decathlon") / "Task01_BrainTumour"
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    pairs = []
    for index in range(8):
        name = f"BRATS_{index:03}.nii.gz"
        volume = np.zeros((24, 20, 31, 4), np.float32)
        for modality in range(4):
            volume[4:20, 4:16, 5:26, modality] = 100 * (modality + 1) + np.arange(21)
        labels = np.zeros(volume.shape[:3], np.uint8)
        labels[6:9, 5:9, 12:18] = np.arange(6) % 3 + 1
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), root / "imagesTr" / name)
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), root / "labelsTr" / name)
        (root / "imagesTr" / f"._{name}").write_bytes(b"left by macOS")
        pairs.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    (root / "dataset.json").write_text(json.dumps({"training": pairs, "test": []}))
    return root


def test_decathlon_is_read_in_its_official_layout(task01, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(task01.parent))
    found = data.load("real", dataset="decathlon", size=48)
    train, validation, test = patients_of(found)
    assert [len(part) for part in (train, validation, test)] == [6, 1, 1]
    assert not train & validation | train & test | validation & test
    slices = found.train.x[found.train.groups == found.train.groups[0]]
    assert slices.shape[1:] == (48, 48, 3)
    middle = slices[:, 20, 24]
    assert (np.diff(middle, axis=1) != 0).all()
    np.testing.assert_array_equal(middle[:, 1] - middle[:, 0], -100)  # FLAIR is the first of four
    np.testing.assert_array_equal(np.diff(middle[:, 0]), decathlon.EVERY)
    assert found.train.y.any()
    share = found.train.y[found.train.has_tumour].mean()
    assert share == pytest.approx(12 / 24**2, rel=0.2)
    assert found.source.startswith("real:")


def test_labels_of_all_three_kinds_are_tumour(task01):
    _, labels = decathlon.listed(task01)[0]["BRATS_000"]
    image = task01 / "imagesTr" / "BRATS_000.nii.gz"
    _, masks = decathlon.read_pair(image, labels, 24)
    assert masks.any(axis=(1, 2)).sum() in (1, 2)
    whole = decathlon.read_volume(labels)
    assert set(np.unique(whole)) == {0, 1, 2, 3}


def test_the_handouts_split_is_of_patients_with_seed_816():
    names = [f"BRATS_{index:03}" for index in range(484)]
    parts = decathlon.handout_split(names)
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 411, "validation": 36, "test": 37,
    }  # fmt: skip
    assert sorted(chain(*parts.values())) == names
    assert parts == decathlon.handout_split(names[::-1])


@pytest.mark.parametrize("kind", ["json", "absent", "damaged", "shape", "few"])
def test_decathlon_files_that_are_wrong_are_named(task01, tmp_path, kind):
    import shutil

    root = shutil.copytree(task01, tmp_path / "Task01_BrainTumour")
    image = root / "imagesTr" / "BRATS_003.nii.gz"
    named = image.name
    if kind == "json":
        (root / "dataset.json").write_text("[]")
        named = "dataset.json"
    elif kind == "absent":
        image.unlink()
    elif kind == "damaged":
        image.write_bytes(image.read_bytes()[:200])
    elif kind == "shape":
        nibabel.save(nibabel.Nifti1Image(np.zeros((24, 20, 31), np.float32), np.eye(4)), image)
    else:
        listing = json.loads((root / "dataset.json").read_text())
        (root / "dataset.json").write_text(json.dumps({"training": listing["training"][:1]}))
        named = "too few"
    with pytest.raises(DataError, match=named):
        decathlon.read(root, 24)


def test_a_mask_lies_where_it_was_found_in_the_files_own_axes(tmp_path):
    voxels = np.zeros((10, 12, 8), np.float32)
    voxels[2:5, 7:9, 1:4] = 5
    affine = np.diag([-1.0, 1, 2, 1])[[1, 0, 2, 3]]  # other axes, one turned round
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    slices = np.moveaxis(decathlon.read_volume(tmp_path / "scan.nii.gz"), 2, 0)
    decathlon.write_mask(slices > 0, tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz")
    written = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), voxels > 0)
    np.testing.assert_array_equal(written.affine, affine)


# --- Floors --------------------------------------------------------------------------------------


def test_test_labels_change_no_choice_of_a_floor():
    found = data.load("sample", smoke=True)
    rolled = replace(found, test=replace(found.test, y=found.test.y[::-1]))
    before, after = (floors.floors(each, smoke=True) for each in (found, rolled))
    for name in before:
        if name.startswith(("threshold", "chosen", "validation")):
            assert before[name] == after[name], name
    assert before["floor_gradient_boosting"] != after["floor_gradient_boosting"]
    assert before["floor_gradient_boosting"] > before["floor_threshold"] - 0.2


def test_there_are_as_many_features_as_the_floor_says():
    described = floors.features(np.zeros((2, 32, 32, 3), np.float32), np.array([0, 0]))
    assert f"gradient boosting on {described.shape[-1]} features" in floors.__doc__
