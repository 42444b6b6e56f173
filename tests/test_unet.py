"""TP4's U-Net: the hand-out's numbers, learning by heart, augmentation, choices, figures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import get_args, get_type_hints

import keras
import numpy as np
import pytest

import labkit
from labkit import Data, results
from labkit.batches import Batches
from labkit.comparison import Outcome
from tests.test_lgg import write_tree
from tp4_unet_conv3d import (
    augmentation,
    evaluate,
    loss_comparison,
    losses,
    mask_figures,
    metrics,
    models,
    segmentation,
    unet_segmentation,
)
from tp4_unet_conv3d.floors import floor_masks
from tp4_unet_conv3d.segmentation import SegmentationPart, compile_logits, convergence, score


def part_of(images: np.ndarray, masks: np.ndarray) -> SegmentationPart:
    """Images and masks (n, h, w), one object in each, each image for itself."""
    x = images[..., None].astype(np.float32)
    return SegmentationPart(x, masks.astype(np.uint8), np.arange(len(x)))


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


def test_it_learns_images_by_heart():
    labkit.prepare(0)
    rng = np.random.default_rng(0)
    x = rng.random((4, 128, 128, 1), np.float32)
    y = np.zeros_like(x)
    for mask in y:  # squares that nothing in the noise gives away
        row, column = rng.integers(0, 80, 2)
        mask[row : row + 40, column : column + 40] = 1
    x += 0.5 * y * (x > 0.5) - 0.5 * y * (x < 0.5)  # another spread, the same mean
    network = models.build_unet(4, depth=1)
    model = compile_logits(network, "bce+dice", keras.optimizers.Adam(0.01))
    model.fit(x, y, batch_size=4, epochs=40, verbose=0)
    assert (dice := model.evaluate(x, y, verbose=0, return_dict=True)["dice"]) > 0.95
    masks = network.predict(x, verbose=0)[..., 0] > 0.5  # the same weights, behind the sigmoid
    assert metrics.overlap(masks, y[..., 0] > 0)[0].mean() == pytest.approx(dice, abs=1e-6)


def test_a_number_of_mri_slices_without_mri_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        unet_segmentation.main(["--smoke", "--mri-slices", "1073"])
    assert "--mri-slices 1073 is for --data real" in capsys.readouterr().err


def test_weights_of_logits_come_back_as_probabilities(tmp_path):
    network = models.build_unet(2, depth=1)
    model = compile_logits(network, "dice", keras.optimizers.Adam())
    model.save_weights(tmp_path / "best.weights.h5")
    again = segmentation.restored(
        partial(models.build_unet, 2, 1), tmp_path / "best.weights.h5", "dice", 1
    )
    x = np.random.default_rng(0).random((2, 128, 128, 1), np.float32)
    np.testing.assert_array_equal(again.predict(x, verbose=0), network.predict(x, verbose=0))
    y = (x > 0.5).astype(np.float32)
    assert again.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(
        model.evaluate(x, y, verbose=0, return_dict=True)["loss"], rel=1e-5
    )


# --- Batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [augmentation.turn, augmentation.move_head])
def test_masks_move_with_their_images(transform):
    rng = np.random.default_rng(0)
    masks = np.zeros((20, 64, 64, 1), np.float32)
    for mask in masks:
        row, column = rng.integers(10, 40, 2)
        mask[row : row + 14, column : column + 9] = 1
    images = 4 * masks - 1
    before = images.copy()
    moved, moved_masks = transform(images, masks, np.random.default_rng(1))
    np.testing.assert_array_equal(images, before)  # the originals stay
    assert moved.shape == images.shape
    assert moved.dtype == moved_masks.dtype == np.float32
    assert set(np.unique(moved_masks)) == {0, 1}
    agreement, _ = metrics.overlap(moved[..., 0] > 1, moved_masks[..., 0] > 0)
    assert agreement.min() > 0.9
    assert sum(not np.array_equal(a, b) for a, b in zip(masks, moved_masks, strict=True)) > 10
    areas = moved_masks.sum(axis=(1, 2, 3))
    assert (abs(areas / 126 - 1) < 0.35).all()


def test_heads_are_mirrored_left_to_right_and_never_upside_down():
    masks = np.zeros((40, 64, 64, 1), np.float32)
    masks[:, 16:22, 16:22] = 1  # top left
    _, moved = augmentation.move_head(2 * masks, masks, np.random.default_rng(0))
    rows, columns = np.mgrid[:64, :64]
    middles = [(rows[mask > 0].mean(), columns[mask > 0].mean()) for mask in moved[..., 0]]
    down, right = np.transpose(middles)
    assert down.max() < 32
    assert 10 < (right > 32).sum() < 30


def test_an_epoch_has_every_target_and_some_of_the_rest():
    x = np.arange(40, dtype=np.float32).reshape(-1, 1, 1, 1)
    y = (x < 10).astype(np.float32)

    def epoch(sequence):
        found = [sequence[index] for index in range(len(sequence))]
        for images, masks in found:
            np.testing.assert_array_equal(masks, images < 10)
        return np.concatenate([images.ravel() for images, _ in found])

    sequence = Batches(x, y, 8, 3, draw=augmentation.fewer_empty(y, 0.5))
    first = epoch(sequence)
    assert len(sequence) == 4
    assert set(range(10)) < set(first.tolist())
    assert len(set(first.tolist())) == len(first) == 25
    sequence.on_epoch_end()
    second = epoch(sequence)
    assert set(range(10)) < set(second.tolist())
    assert set(first.tolist()) != set(second.tolist())
    again = Batches(x, y, 8, 3, draw=augmentation.fewer_empty(y, 0.5))
    np.testing.assert_array_equal(epoch(again), first)


# --- Choices -------------------------------------------------------------------------------------


@pytest.fixture
def data() -> Data:
    """Noise whose target lies above another value in each part: 0.3 on validation, 0.7 on test."""
    parts = {}
    for seed, (part, cut) in enumerate({"train": 0.5, "validation": 0.3, "test": 0.7}.items()):
        images = np.random.default_rng(seed).random((6, 32, 32))
        parts[part] = part_of(images, images > cut)
    return Data("simulated:noise", **parts)


def test_the_threshold_is_chosen_on_validation_images(data, monkeypatch):
    """The network here is none: its probabilities are the images."""
    monkeypatch.setattr(unet_segmentation, "probabilities_of", lambda model, x: x[..., 0])
    found, masks = unet_segmentation.evaluate(None, data)
    assert found["threshold"] == 0.3
    assert found["validation_dice"] == 1
    np.testing.assert_array_equal(masks["U-Net"], data.test.images > 0.3)
    assert found["dice"] == pytest.approx(2 * 0.3 / (0.3 + 0.7), abs=0.02)
    assert found["dice_mirrored"] == found["dice"]  # this network doesn't mind mirrors


def test_floors_are_chosen_on_validation_images(data):
    masks, chosen = floor_masks(data)
    assert chosen["threshold_floor_threshold"] == pytest.approx(0.3, abs=0.03)
    assert chosen["threshold_floor_threshold_above"] == chosen["threshold_floor_otsu_above"] == 1
    other_test = replace(data, test=replace(data.test, y=1 - data.test.y))
    again, same = floor_masks(other_test)
    assert same == chosen
    for name, mask in masks.items():
        np.testing.assert_array_equal(again[name], mask)
    validation = replace(data.validation, y=1 - data.validation.y)
    _, turned = floor_masks(replace(data, validation=validation))
    assert turned["threshold_floor_threshold_above"] == turned["threshold_floor_otsu_above"] == 0


def test_floors_are_scored_in_every_metric(data):
    found, masks = segmentation.floors(data)
    for name, mask in masks.items():
        dice, iou = metrics.overlap(mask, data.test.masks)
        assert found[f"floor_{name}"] == np.mean(dice)
        assert found[f"floor_{name}_iou"] == np.mean(iou)
    assert found["floor_all_background"] == found["floor_all_background_iou"] == 0


def test_no_threshold_finds_the_published_cells():
    floors = results.read("tp4_unet_conv3d.unet_segmentation.cells")["floors"]
    assert {"threshold", "otsu"} <= set(floors)
    assert max(floors.values()) <= 0.6


def test_convergence_is_the_first_epoch_above_the_target():
    history = {"val_dice": [0.2, 0.85, 0.7, 0.9], "seconds": [10.0, 21.0, 30.0, 41.0]}
    assert convergence(history) == {"epochs_to_dice_0.8": 2, "seconds_to_dice_0.8": 21.0}
    assert convergence({"val_dice": [0.1], "seconds": [1.0]}) == {}


def test_scores_of_known_predictions():
    instances = np.zeros((3, 32, 32), np.uint8)
    instances[0, 4:24, 4:24] = 1
    instances[1, 4:8, 4:8] = 1
    part = part_of(np.zeros((3, 32, 32)), instances)
    probabilities = part.masks.astype(np.float32)
    perfect = score(probabilities, part, 0.5)
    assert perfect["dice"] == perfect["iou"] == perfect["boundary_f1"] == 1
    assert perfect["hd95"] == perfect["objects_missed"] == 0
    assert perfect["empty_images"] == perfect["empty_images_kept_empty"] == 1
    assert (perfect["objects"], perfect["small_objects"]) == (2, 1)
    probabilities[1] = 0  # the small one is missed
    found = score(probabilities, part, 0.5)
    assert found["dice"] == 0.5
    assert found["dice_all_pixels"] == pytest.approx(2 * 400 / 816)
    assert (found["small_objects_missed"], found["objects_missed"]) == (1, 1)
    assert found["small_object_dice"] == 0
    assert found["hd95_undefined"] == 1


# --- A training on slices ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> SimpleNamespace:
    """A smoke training on miniature MRI slices, and where it lies."""
    folder, home = tmp_path_factory.mktemp("mri"), tmp_path_factory.mktemp("home")
    write_tree(folder, slices=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_DATA", str(folder))
        patch.setenv("LABKIT_HOME", str(home))
        metrics = unet_segmentation.main(["--smoke", "--data", "real", "--loss", "tversky"])
        run = labkit.find_run("tp4_unet_conv3d.unet_segmentation")
    return SimpleNamespace(metrics=metrics, run=run, data=folder, home=home)


@pytest.fixture
def at_home(trained, monkeypatch) -> SimpleNamespace:
    monkeypatch.setenv("LABKIT_DATA", str(trained.data))
    monkeypatch.setenv("LABKIT_HOME", str(trained.home))
    return trained


def test_patients_are_scored_beside_their_floors(trained):
    run, found = trained.run, trained.metrics
    assert run.state["name"] == "unet4-adam-tversky-s0"
    assert run.data_source.startswith("real:")
    assert set(run.history) >= {"loss", "dice", "iou", "val_loss", "val_dice", "val_iou", "seconds"}
    assert found["best_epoch"] == np.argmax(run.history["val_dice"]) + 1
    report = (run.folder / "report.md").read_text()
    assert f"| U-Net | {found['dice']:.4f} | {found['iou']:.4f} |" in report
    assert f"| floor: otsu | {found['floor_otsu']:.4f} | {found['floor_otsu_iou']:.4f} |" in report
    assert "Means over patients with a target" in report
    assert isinstance(keras.saving.load_model(run.folder / "model.keras").loss, losses.Tversky)


def test_the_examination_tells_what_the_training_measured(at_home):
    found = evaluate.main(["--smoke"])
    assert found["dice"] == at_home.metrics["dice"]
    report = (labkit.find_run("tp4_unet_conv3d.evaluate").folder / "report.md").read_text()
    assert f"| U-Net | {found['dice']:.4f} |" in report
    assert f"of {found['objects']:.0f} objects" in report
    assert f"Brier score {found['brier']:.4f}" in report


@pytest.mark.parametrize("arguments", [["--data", "sample"], ["--level", "hard"]])
def test_slices_are_not_examined_as_cells(arguments, at_home, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(arguments)
    assert "this run was trained on" in capsys.readouterr().err


# --- Losses compared -----------------------------------------------------------------------------


def outcomes_of(samples: dict[str, dict[str, list[float]]]) -> list[Outcome]:
    """One for each seed, from `samples[loss][metric]`."""
    return [
        Outcome(
            loss_comparison.Trial(
                configuration=loss, seed=seed, level="standard", width=8, epochs=10, precision=""
            ),
            {metric: values[seed] for metric, values in of_loss.items() if seed < len(values)},
            {}, "", None,
        )
        for loss, of_loss in samples.items()
        for seed in range(len(of_loss["dice"]))
    ]  # fmt: skip


def test_losses_that_differ_are_told_from_those_that_do_not():
    samples = {
        "bce": [0.5, 0.52, 0.51],
        "bce_and_dice": [0.7, 0.71, 0.73],
        "focal": [0.4, 0.6, 0.5],
    }
    outcomes = outcomes_of(
        {loss: {"dice": dice, "validation_dice": dice} for loss, dice in samples.items()}
    )
    outcomes[0].metrics["epochs_to_dice_0.8"] = 4.0
    found = loss_comparison.conclusions(outcomes)
    assert found[0].startswith("bce: 1 of 3 trainings reach validation Dice 0.8, after 4.0 epochs")
    assert any(
        sentence.startswith("bce+dice is above bce in Dice: +20.33 points [") for sentence in found
    )
    assert any("focal and bce can't be told apart by Dice" in sentence for sentence in found)


def test_the_published_sentences_follow_from_the_published_figures():
    content = results.read("tp4_unet_conv3d.loss_comparison")
    samples: dict[str, dict[str, list[float]]] = {}
    for name, found in content["metrics"].items():
        loss, _, metric = name.partition("/")
        samples.setdefault(loss, {})[metric] = found["values"]
    assert loss_comparison.conclusions(outcomes_of(samples)) == content["conclusions"]


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_names_follow_the_convention(loss):
    assert loss in get_args(get_type_hints(unet_segmentation.Config)["loss"])
    configuration = loss.replace("+", "_and_")
    assert configuration in loss_comparison.LOSSES
    trial = loss_comparison.Trial(
        configuration=configuration, seed=0, level="standard", width=8, epochs=1, precision=""
    )
    assert trial.loss == loss
    assert labkit.runs.RUN_NAME.fullmatch(trial.run_name)


# --- Figures -------------------------------------------------------------------------------------


def test_an_overlay_has_a_colour_for_each_kind_of_pixel():
    truth, predicted = np.array([[[1, 1, 0, 0]]], bool), np.array([[[1, 0, 1, 0]]], bool)
    right, missed, false, neither = segmentation.overlay(np.zeros((1, 1, 4)), predicted, truth)[
        0, 0
    ]
    assert right.argmax() == 1  # green
    assert missed.argmax() == 0  # orange
    assert missed[1] > missed[2]
    assert false.argmax() == 0  # magenta
    assert false[2] > false[1]
    assert not neither.any()


def test_best_middle_and_worst_images_are_shown():
    images = np.random.default_rng(0).random((9, 16, 16))
    part = part_of(images, images > 0.5)
    dice = np.array([0.5, 0.9, np.nan, 0.1, 0.7, 0.3, 0.8, 0.2, 0.6])
    figure = mask_figures.extremes_figure(part, images > 0.4, dice)
    titles = [axis.get_title() for axis in figure.axes[:9]]
    assert titles[0] == "best: 0.900\n#1"
    assert titles[8] == "worst: 0.100\n#3"
    assert not any("nan" in title for title in titles)


def test_averages_by_size_against_a_loop():
    area = np.array([10, 30, 100, 150, 2000])
    dice = np.array([0.2, 0.6, 0.5, 1.0, 0.9])
    found = metrics.Objects(area, dice, dice)
    rows = mask_figures.averages_by_size(found)
    assert [(row["from"], row["objects"]) for row in rows] == [(0, 2), (80, 2), (640, 1)]
    iou = (0.2 / 1.8 + 0.6 / 1.4) / 2
    assert rows[0]["dice"] == pytest.approx(0.4)
    assert rows[0]["iou"] == pytest.approx(iou)
    assert rows[0]["dice_of_mean_iou"] == pytest.approx(2 * iou / (1 + iou))
    assert all(row["dice_of_mean_iou"] >= row["dice"] - 1e-12 for row in rows)  # Jensen
    assert "| 640 | 1 | 0.900 |" in mask_figures.size_table(rows)
