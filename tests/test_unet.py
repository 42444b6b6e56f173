"""TP4's U-Net: the hand-out's numbers, learning by heart, augmentation, training and resuming."""

import json
from dataclasses import asdict
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest

import labkit
from tests.test_mri import write_tree
from tp4_unet_conv3d import (
    augmentation,
    evaluate,
    loss_comparison,
    losses,
    metrics,
    models,
    unet_segmentation,
)
from tp4_unet_conv3d.unet_segmentation import Config, Part, convergence, score


@pytest.fixture
def few(monkeypatch):
    """A training of seconds: twelve images."""
    counts = {"train": 12, "validation": 6, "test": 6}
    monkeypatch.setattr(unet_segmentation, "COUNTS", counts)
    monkeypatch.setattr(unet_segmentation, "BATCH_SIZE", 6)


# --- Network -------------------------------------------------------------------------------------


def test_parameters_are_the_handouts():
    labkit.prepare(0)
    model = models.build_unet()
    assert model.count_params() == 1_930_657
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_variables) == 1_927_841
    assert model.output.shape == (None, 128, 128, 1)
    skips = [layer for layer in model.layers if isinstance(layer, keras.layers.Concatenate)]
    assert [layer.output.shape[1:] for layer in skips] == [
        (32, 32, 256), (64, 64, 128), (128, 128, 64),
    ]  # fmt: skip


def test_operations_are_counted_by_hand():
    labkit.prepare(0)
    width, total = 2, 0
    sizes = [(128, 1, 2), (128, 2, 2), (64, 2, 4), (64, 4, 4), (32, 4, 8), (32, 8, 8)]
    sizes += [(16, 8, 16), (16, 16, 16), (32, 16, 8), (32, 8, 8), (64, 8, 4), (64, 4, 4)]
    sizes += [(128, 4, 2), (128, 2, 2)]
    for side, before, after in sizes:
        total += 2 * 9 * side**2 * before * after
    for side, before, after in ((16, 16, 8), (32, 8, 4), (64, 4, 2)):  # transposed, 2x2
        total += 2 * 4 * side**2 * before * after
    total += 2 * 128**2 * width
    assert models.forward_flops(models.build_unet(width)) == total


@pytest.mark.slow
def test_it_learns_images_by_heart():
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    x = rng.random((4, 128, 128, 1), np.float32)
    y = np.zeros_like(x)
    for mask in y:  # squares that nothing in the noise gives away
        row, column = rng.integers(0, 80, 2)
        mask[row : row + 40, column : column + 40] = 1
    x += 0.5 * y * (x > 0.5) - 0.5 * y * (x < 0.5)  # another spread, the same mean
    model = models.build_unet(4)
    model.compile(
        keras.optimizers.Adam(0.01), loss=losses.CrossEntropyAndDice(), metrics=[metrics.Dice()]
    )
    model.fit(x, y, batch_size=4, epochs=40, verbose=0)
    assert model.evaluate(x, y, verbose=0, return_dict=True)["dice"] > 0.95


# --- Batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [augmentation.turn, augmentation.move_head])
def test_masks_move_with_their_images(augment):
    rng = np.random.default_rng(0)
    masks = np.zeros((20, 64, 64, 1), np.float32)
    for mask in masks:
        row, column = rng.integers(10, 40, 2)
        mask[row : row + 14, column : column + 9] = 1
    images = 4 * masks - 1
    before = images.copy()
    moved, moved_masks = augment(images, masks, np.random.default_rng(1))
    np.testing.assert_array_equal(images, before)  # the originals stay
    assert moved.shape == images.shape
    assert moved.dtype == moved_masks.dtype == np.float32
    assert set(np.unique(moved_masks)) == {0, 1}
    agreement, _ = metrics.overlap(moved[..., 0] > 1, moved_masks[..., 0] > 0)
    assert agreement.min() > 0.9
    assert sum(not np.array_equal(a, b) for a, b in zip(masks, moved_masks, strict=True)) > 10
    areas = moved_masks.sum(axis=(1, 2, 3))
    assert (abs(areas / 126 - 1) < 0.35).all()


def test_an_epoch_has_every_target_and_some_of_the_rest():
    x = np.arange(40, dtype=np.float32).reshape(-1, 1, 1, 1)
    y = np.zeros_like(x)
    y[:10] = 1

    def batches():
        return augmentation.SegmentationBatches(
            x, y, 8, 3, 0, augment=lambda images, masks, rng: (images, masks), keep_empty=0.5
        )

    def epoch(sequence):
        found = [sequence[index] for index in range(len(sequence))]
        for images, masks in found:
            np.testing.assert_array_equal(masks[:, 0, 0, 0], images[:, 0, 0, 0] < 10)
        return np.concatenate([images.ravel() for images, _ in found])

    sequence = batches()
    first = epoch(sequence)
    assert len(sequence) == 4
    assert set(range(10)) < set(first.tolist())
    assert len(set(first.tolist())) == len(first) == 25
    sequence.on_epoch_end()
    second = epoch(sequence)
    assert set(first.tolist()) != set(second.tolist())
    np.testing.assert_array_equal(epoch(batches()), first)


# --- Training ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_resumed_equals_uninterrupted(few, tmp_path, monkeypatch):
    arguments = ["--epochs", "2", "--width", "2", "--precision", "float32", "--loss", "tversky"]
    whole = unet_segmentation.main(arguments)
    run = labkit.find_run("tp4_unet_conv3d.unet_segmentation")
    assert run.state["name"] == "unet2-adam-tversky-s0"
    assert run.state["data_source"] == "simulated:standard"
    assert set(run.history) >= {"loss", "dice", "iou", "val_loss", "val_dice", "val_iou", "seconds"}
    assert whole["best_epoch"] == np.argmax(run.history["val_dice"]) + 1
    assert not (run.folder / "best.weights.h5").exists()
    for figure in ("learning_curves", "overlays"):
        assert (run.folder / f"{figure}.png").stat().st_size > 10_000

    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "other"))
    record_epoch = labkit.Run.record_epoch

    def interrupted(run, epoch, *rest):
        record_epoch(run, epoch, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(labkit.Run, "record_epoch", interrupted)
        with pytest.raises(SystemExit, match="130"):
            unet_segmentation.main(arguments)
    resumed = unet_segmentation.main([*arguments, "--resume"])
    for name, value in whole.items():
        if "seconds" not in name:
            assert resumed[name] == value, name

    # The saved model is what was tested, with its loss and metrics.
    monkeypatch.setenv("LABKIT_HOME", str(run.folder.parents[2]))
    saved = keras.saving.load_model(run.folder / "model.keras")
    assert isinstance(saved.loss, losses.Tversky)
    examined = evaluate.main([])
    for name in ("dice", "dice_low", "iou", "boundary_f1", "objects_missed", "floor_threshold"):
        assert examined[name] == whole[name], name
    folder = labkit.find_run("tp4_unet_conv3d.evaluate").folder
    for figure in (
        "best_and_worst", "dice_distribution", "object_size", "dice_and_iou", "calibration",
    ):  # fmt: skip
        assert (folder / f"{figure}.png").stat().st_size > 10_000
    assert all(isinstance(value, float) for value in (examined | whole).values())
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--data", "real"])


@pytest.mark.slow
def test_slices_in_the_official_layout(tmp_path, monkeypatch, capsys):
    write_tree(tmp_path, slices=3)
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    unet_segmentation.main(["--smoke", "--data", "real"])
    assert "mean over patients" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--data", "sample"])
    assert "trained on real" in capsys.readouterr().err


@pytest.mark.slow
def test_losses_are_compared_on_the_same_terms(monkeypatch):
    metrics = loss_comparison.main(["--smoke", "--ray-address", "off"])
    run = labkit.find_run("tp4_unet_conv3d.loss_comparison")
    report = (run.folder / "report.md").read_text()
    compared = json.loads((run.folder / "comparison.json").read_text())
    assert compared["seeds"] == [0]
    for loss in ("bce", "dice"):
        values = compared["series"][f"{loss}/dice"]
        assert len(values) == 1
        assert metrics[f"{loss}/dice"] == pytest.approx(np.mean(values))
        assert f"{loss}: 0 of 1 trainings reach" in report
        assert f"| {loss} | " in report
    assert metrics["floor_all_background"] == 0
    # A finished comparison is shown again, not repeated.
    monkeypatch.setattr(loss_comparison, "run_trial", None)
    again = loss_comparison.main(["--smoke", "--ray-address", "off", "--resume"])
    assert again == metrics


def test_losses_that_differ_are_told_from_those_that_do_not():
    samples = {"bce": (0.5, 0.52, 0.51), "dice": (0.7, 0.71, 0.73), "focal": (0.4, 0.6, 0.5)}
    outcomes = [
        {"loss": loss, "seed": seed, "metrics": {"dice": value, "validation_dice": value}}
        for loss, sample in samples.items()
        for seed, value in enumerate(sample)
    ]
    outcomes[0]["metrics"]["epochs_to_dice_0.8"] = 4.0
    found = loss_comparison.conclusions(outcomes)
    assert found[0].startswith("bce: 1 of 3 trainings reach validation Dice 0.8, after 4.0 epochs")
    assert any(sentence.startswith("Dice: dice is above bce, +0.203 [") for sentence in found)
    assert any("focal and bce can't be told apart" in sentence for sentence in found)


def test_convergence_is_the_first_epoch_above_the_target():
    history = {"val_dice": [0.2, 0.85, 0.7, 0.9], "seconds": [10.0, 21.0, 30.0, 41.0]}
    assert convergence(history) == {"epochs_to_dice_0.8": 2, "seconds_to_dice_0.8": 21.0}
    assert convergence({"val_dice": [0.1], "seconds": [1.0]}) == {}


def test_scores_of_known_predictions():
    instances = np.zeros((3, 32, 32), np.uint8)
    instances[0, 4:24, 4:24] = 1
    instances[1, 4:8, 4:8] = 1
    part = Part(np.zeros((3, 32, 32, 1), np.float32), instances, np.arange(3))
    probabilities = part.masks.astype(np.float32)
    perfect = score(probabilities, part, 0.5)
    assert perfect["dice"] == perfect["iou"] == perfect["boundary_f1"] == 1
    assert perfect["hd95"] == perfect["objects_missed"] == 0
    assert perfect["empty_images"] == perfect["empty_images_kept_empty"] == 1
    probabilities[1] = 0  # the small one is missed
    found = score(probabilities, part, 0.5)
    assert found["dice"] == 0.5
    assert found["dice_all_pixels"] == pytest.approx(2 * 400 / 816)
    assert (found["small_objects_missed"], found["objects_missed"]) == (1, 1)
    assert found["hd95_undefined"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--width", "0"], "--width must be 1 or more, got 0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
    ],
)
def test_impossible_settings_are_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        labkit.parse(Config, arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_names_follow_the_convention(loss):
    assert loss in get_args(get_type_hints(Config)["loss"])
    assert labkit.run.RUN_NAME.fullmatch(f"unet16-adam-{loss}-s0")
    assert asdict(Config(loss=loss))["loss"] == loss
