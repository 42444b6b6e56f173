"""TP4's U-Nets of volumes: one sees depth, one doesn't; whole MRI volumes; masks that go along."""

import itertools

import keras
import numpy as np
import pytest

import labkit
from labkit import comparison, lgg
from labkit.datasets import Data
from tp4_unet_conv3d import losses, metrics, volume_segmentation
from tp4_unet_conv3d.augmentation import mirror
from tp4_unet_conv3d.models import build_unet, build_volume_unet
from tp4_unet_conv3d.volume_segmentation import Volumes, conclusions, load
from tp4_unet_conv3d.volumes import TUBE_EDGE, draw_scene, tube, tubes


def random_volumes(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_without_depth_it_is_the_unet_for_images_on_every_slice():
    planar, volumes = build_unet(2), build_volume_unet((3, 128, 128), 2, 1)
    for one, other in zip(planar.weights, volumes.weights, strict=True):
        shift = 0 if "variance" in one.path else 0.4
        one.assign(random_volumes(*one.shape, seed=one.shape[-1]) - shift)
        other.assign(keras.ops.reshape(one, other.shape))
    x = random_volumes(2, 3, 128, 128, 1)
    expected = planar.predict(x.reshape(6, 128, 128, 1), verbose=0).reshape(x.shape)
    assert expected.std() > 0.01
    np.testing.assert_allclose(volumes.predict(x, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize(("depth", "reaches"), [(1, False), (3, True)])
def test_what_a_prediction_depends_on(depth, reaches):
    """Another slice is changed: slice 3's prediction moves with kernels of three slices alone."""
    keras.utils.set_random_seed(0)
    model = build_volume_unet((8, 16, 16), 2, depth)
    x = random_volumes(1, 8, 16, 16, 1)
    changed = x.copy()
    changed[:, 5] += 1
    before, after = (model.predict(each, verbose=0)[0, 3] for each in (x, changed))
    assert (np.abs(before - after).max() > 1e-6) == reaches


def test_losses_and_metrics_take_a_volume_as_one_image():
    truth = (random_volumes(2, 3, 4, 5, 1) > 0.7).astype(np.float32)
    predicted = random_volumes(2, 3, 4, 5, 1, seed=1)
    flat = [each.reshape(2, 60).astype(float) for each in (truth, predicted)]
    both, sizes = (flat[0] * flat[1]).sum(axis=1), flat[0].sum(axis=1) + flat[1].sum(axis=1)
    assert float(losses.Dice()(truth, predicted)) == pytest.approx(
        np.mean(1 - (2 * both + 1) / (sizes + 1)), rel=1e-5
    )
    metric = metrics.Dice(threshold=None)
    metric.update_state(truth, predicted)
    assert float(metric.result()) == pytest.approx(np.mean(2 * both / sizes), rel=1e-5)


def test_masks_are_mirrored_with_their_volumes():
    volumes = random_volumes(16, 4, 6, 8, 1)
    masks = (volumes > 0.5).astype(np.float32)
    kept = volumes.copy()
    moved, moved_masks = mirror(volumes, masks, np.random.default_rng(0))
    np.testing.assert_array_equal(volumes, kept)
    brightness = moved.max(axis=(1, 2, 3, 4)) / volumes.max(axis=(1, 2, 3, 4))
    assert brightness == pytest.approx(np.ones(16), abs=0.1001)
    assert np.ptp(brightness) > 0.05
    np.testing.assert_array_equal(moved_masks, moved / brightness[:, None, None, None, None] > 0.5)
    assert 0 < (moved_masks == masks).all(axis=(1, 2, 3, 4)).sum() < 16


def test_tubes_have_their_masks_and_parts_share_none():
    volumes, masks = tubes(6, 0)
    inside = [volume[mask].mean() for volume, mask in zip(volumes, masks, strict=True)]
    outside = [volume[~mask].mean() for volume, mask in zip(volumes, masks, strict=True)]
    assert np.greater(inside, outside).all()
    scene = draw_scene(np.random.default_rng([2025, 0, 0]))
    np.testing.assert_array_equal(masks[0], tube(scene) >= TUBE_EDGE)
    others, _ = tubes(6, 1)
    assert not any((volume == other).all() for volume in volumes for other in others)


# --- Whole MRI volumes ---------------------------------------------------------------------------


def write_volumes(path, train=8, test=2, width=96, shared=False):
    rng = np.random.default_rng(0)
    arrays = {}
    names = [f"patient{number}" for number in range(train + test)]
    for number, name in enumerate(names):
        depth = 24 + 3 * number
        arrays[f"{name}/flair"] = rng.integers(0, 255, (depth, 96, width)).astype(np.uint8)
        mask = np.zeros((depth, 96, 96), bool)
        mask[number + 5 : number + 8, 40:60, 50:70] = True
        arrays[f"{name}/mask"] = np.packbits(mask, axis=-1)
    arrays["train_patients"] = np.array(names[:train])
    arrays["test_patients"] = np.array(names[train - shared :])
    np.savez(path, **arrays)


def test_volumes_are_split_by_patient(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    write_volumes(tmp_path / lgg.ORIGINS["volumes"].files[0])
    parts, source = lgg.load_volumes()
    assert source.startswith("real:")
    assert [len(volumes) for volumes, _ in parts.values()] == [6, 2, 2]
    every = np.concatenate([volumes for volumes, _ in parts.values()])
    assert every.shape == (10, 32, 96, 96, 1)
    assert every.dtype == np.float32
    assert len(np.unique(every[:, 0, 0, 0, 0])) == 10
    for _, masks in parts.values():
        assert masks.dtype == bool
        assert (masks.sum(axis=(2, 3)).max(axis=1) == 400).all()


@pytest.mark.parametrize("fault", ["absent", "truncated", "width", "shared", "few"])
def test_volumes_that_cannot_be_had_are_named(fault, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    path = tmp_path / lgg.ORIGINS["volumes"].files[0]
    if fault != "absent":
        train, width = 1 if fault == "few" else 8, 80 if fault == "width" else 96
        write_volumes(path, train, width=width, shared=fault == "shared")
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(SystemExit) as stopped:
        lgg.load_volumes()
    assert stopped.value.code == 2
    assert str(path) in capsys.readouterr().err


def test_resampling():
    volume = np.repeat(np.arange(63, dtype=np.uint8)[:, None, None], 4, axis=1).repeat(4, axis=2)
    mask = volume > 40
    values, moved = lgg.resample(volume, mask)
    assert values.shape == (32, 4, 4, 1)
    np.testing.assert_allclose(
        np.diff(values[:, 0, 0, 0]), np.diff(values[:2, 0, 0, 0])[0], atol=1e-5
    )
    np.testing.assert_array_equal(moved[:, 0, 0], 2 * np.arange(32) > 40)
    same, _ = lgg.resample(volume[:32], mask[:32])
    np.testing.assert_allclose(same, lgg.normalise(volume[:32])[..., None], atol=1e-5)


# --- The script ----------------------------------------------------------------------------------


def one_neuron(shape, width, depth):
    """A network that shows brightness: its probabilities are 0.02 at -1, 0.5 at 0, 0.98 at 1."""
    inputs = keras.Input((*shape, 1))
    four = keras.initializers.Constant(4.0)
    logits = keras.layers.Conv3D(1, 1, kernel_initializer=four, name="logits")(inputs)
    return keras.Model(inputs, keras.ops.sigmoid(logits))


def blocks(edges: list[int], background: float) -> Volumes:
    """Volumes of 8x16x16: in slice 2 a square of each of `edges`, in slice 5 one of 2x2."""
    masks = np.zeros((len(edges), 8, 16, 16), bool)
    for mask, edge in zip(masks, edges, strict=True):
        mask[2, :edge, :edge] = mask[5, 8:10, 8:10] = True
    return Volumes(np.where(masks, 1, background)[..., None].astype(np.float32), masks)


@pytest.fixture(scope="module")
def on_blocks(tmp_path_factory):
    """A smoke run with `one_neuron` on blocks: those of the test part have a brighter ground."""
    parts = blocks([3, 5, 4, 6], -1), blocks([4, 9], -1), blocks([3, 12], 0)
    data = Data("simulated:blocks", *parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(tmp_path_factory.mktemp("volumes")))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setattr(volume_segmentation, "load", lambda choice, smoke: data)
        patch.setattr(volume_segmentation, "build_volume_unet", one_neuron)
        found = volume_segmentation.main(["--smoke"])
        yield found, data, labkit.find_run("tp4_unet_conv3d.volume_segmentation")


def test_the_threshold_is_of_validation_and_volumes_are_scored_whole(on_blocks):
    """At the lowest threshold validation is perfect, and on test everything is predicted."""
    found, data, _ = on_blocks
    sizes = np.array([9 + 4, 144 + 4])
    np.testing.assert_array_equal(data.test.y.sum(axis=(1, 2, 3)), sizes)
    for network in ("slices", "volumes"):  # those of a smoke run
        assert found[f"{network}/threshold"] == metrics.THRESHOLDS[0]
        assert found[f"{network}/validation_dice"] == pytest.approx(1)
        assert found[f"{network}/dice"] == pytest.approx(np.mean(2 * sizes / (sizes + 8 * 256)))
        assert found[f"{network}/iou"] == pytest.approx(np.mean(sizes / (8 * 256)))
        assert found[f"{network}/empty_slices"] == 2 * 6
        assert found[f"{network}/empty_slices_kept_empty"] == 0
        assert found[f"{network}/epochs_to_dice_0.8"] == 1
        assert found[f"{network}/gigaflop_per_volume"] == pytest.approx(2 * 8 * 256 / 1e9)


def test_what_a_run_leaves(on_blocks):
    found, data, run = on_blocks
    content = comparison.compared(run)
    assert content["seeds"] == [0, 1]
    assert content["details"] == {"epochs": 2}
    assert len(content["series"]["slices/dice"]) == 2
    assert {name for name in content["floors"] if "iou" not in name} == {
        "floor_all_background", "floor_constant_mask", "floor_threshold", "floor_otsu",
        "floor_local_contrast",
    }  # fmt: skip
    assert "threshold_floor_threshold" in found
    assert (run.folder / "curves.png").exists()
    for folder in content["folders"].values():  # everything is predicted in all of the volumes
        packed = np.load(run.folder.parents[1] / folder / "answers.npy")
        assert np.unpackbits(packed, count=data.test.y.size).all()
    report = (run.folder / "report.md").read_text()
    assert "- slices: 2 of 2 trainings reach validation Dice 0.8, after 1.0 epochs" in report
    assert f"- floor, threshold: {content['floors']['floor_threshold']:.4f}" in report


# --- What is concluded ---------------------------------------------------------------------------


def outcome(network, seed, dice, seconds, **more):
    found = {"dice": dice, "train_seconds": seconds, **more}
    return comparison.Outcome(
        comparison.Trial(configuration=network, seed=seed), found, {}, "", None
    )


def test_conclusions_follow_from_the_figures():
    reached = {"epochs_to_dice_0.8": 4.0, "seconds_to_dice_0.8": 40.0}
    outcomes = [
        outcome("slices", 0, 0.7, 10), outcome("slices", 1, 0.72, 10),
        outcome("volumes", 0, 0.9, 30, **reached), outcome("volumes", 1, 0.8, 30),
    ]  # fmt: skip
    found = conclusions(outcomes)
    assert found[0].startswith("volumes against slices: Dice 0.850 ± 0.071 (n = 2) and 0.710")
    assert "every seed of the first above every seed of the second" in found[0]
    assert "an epoch takes 3.0 ± 0.0 (n = 2) times as long" in found[0]
    assert found[1] == "slices: 0 of 2 trainings reach validation Dice 0.8."
    assert "1 of 2" in found[2]
    assert "4.0 epochs and 40 s" in found[2]
    outcomes[0].metrics["dice"] = 0.85
    assert "overlap" in conclusions(outcomes)[0]


def test_wide_slices_have_as_many_weights_as_volumes():
    depth, factor = volume_segmentation.NETWORKS["wide_slices"]
    assert depth == 1
    wide = build_volume_unet((32, 32, 32), round(8 * factor), depth).count_params()
    deep = build_volume_unet((32, 32, 32), 8, 3).count_params()
    assert deep <= wide < 1.1 * deep


def test_simulated_parts_are_the_same_at_every_call_and_share_no_volume():
    first = load("sample", smoke=True)
    load.cache_clear()
    again = load("sample", smoke=True)
    assert first.source == "simulated:tubes"
    np.testing.assert_array_equal(first.test.x, again.test.x)
    for one, other in itertools.combinations((first.train, first.validation, first.test), 2):
        assert not any((volume == each).all() for volume in one.x for each in other.x)
