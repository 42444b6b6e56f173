"""TP3's demonstrations: truth of the generated images, box arithmetic, networks that learn."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

import labkit
from tp3_cnn_resnet import box_demo, boxes, segmentation_demo, shapes
from tp3_cnn_resnet.boxes import Detections, average_precision, suppress


@pytest.fixture(scope="module")
def scenes() -> shapes.Scenes:
    return shapes.scenes("train", 60)


# --- Images --------------------------------------------------------------------------------------


def test_boxes_are_the_extents_of_the_masks(scenes):
    for mask, box_rows, labels in zip(scenes.masks, scenes.boxes, scenes.labels, strict=True):
        areas, count = ndimage.label(mask > 0, np.ones((3, 3)))
        found = set()
        for number, (rows, columns) in enumerate(ndimage.find_objects(areas), start=1):
            values = np.unique(mask[areas == number])
            assert len(values) == 1  # shapes don't touch
            found.add((columns.start, rows.start, columns.stop, rows.stop, values[0] - 1))
        assert count == len(labels) >= 1
        assert found == {(*box, label) for box, label in zip(box_rows, labels, strict=True)}


def test_parts_share_no_image_and_repeat():
    parts = {part: shapes.scenes(part, 40) for part in shapes.PARTS}
    seen = [image.tobytes() for scenes in parts.values() for image in scenes.images]
    assert len(set(seen)) == len(seen) == 120
    again = shapes.scenes("test", 20)
    np.testing.assert_array_equal(again.images, parts["test"].images[:20])
    np.testing.assert_array_equal(again.masks, parts["test"].masks[:20])


def test_no_two_shapes_have_one_cell():
    scenes = shapes.scenes("train", 200)
    assert box_demo.encode(scenes)[..., 0].sum() == sum(map(len, scenes.labels))


# --- Boxes ---------------------------------------------------------------------------------------


def random_boxes(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 20, (count, 2))
    return np.hstack([corners, corners + rng.integers(1, 12, (count, 2))])


def counted_iou(first: np.ndarray, second: np.ndarray) -> float:
    """IoU by counting pixels."""
    canvas = np.zeros((2, 40, 40), bool)
    for area, (left, top, right, bottom) in zip(canvas, (first, second), strict=True):
        area[top:bottom, left:right] = True
    return canvas.all(axis=0).sum() / canvas.any(axis=0).sum()


def test_iou_against_counted_pixels():
    first, second = random_boxes(12, 0), random_boxes(9, 1)
    expected = [[counted_iou(a, b) for b in second] for a in first]
    np.testing.assert_allclose(boxes.iou(first, second), expected)
    assert boxes.iou(first, second[:0]).shape == (12, 0)


@pytest.mark.parametrize("seed", range(5))
def test_suppression_against_its_recursive_definition(seed):
    """A box stays if and only if no surer box that stays overlaps it."""
    rng = np.random.default_rng(seed)
    found = Detections(random_boxes(25, seed), rng.permutation(25) / 25, np.zeros(25, int))

    def stays(index: int) -> bool:
        return not any(
            found.scores[other] > found.scores[index]
            and counted_iou(found.boxes[other], found.boxes[index]) > 0.3
            and stays(other)
            for other in range(25)
        )

    kept = suppress(found, 0.3)
    assert set(kept.scores) == {found.scores[i] for i in range(25) if stays(i)}
    assert len(kept.scores) < 25


def detections(*rows: tuple[tuple[int, int, int, int], float]) -> Detections:
    found = np.array([box for box, _ in rows], float).reshape(-1, 4)
    return Detections(found, np.array([score for _, score in rows]), np.zeros(len(rows), int))


A, B, C = (0, 0, 10, 10), (20, 20, 30, 30), (0, 20, 10, 30)


def precision_of(found: list[Detections], *truth: tuple) -> float:
    return average_precision(found, [np.array(rows, float).reshape(-1, 4) for rows in truth])


def test_average_precision_of_hand_made_cases():
    assert precision_of([detections((A, 0.9), (B, 0.8))], (A, B)) == 1
    assert precision_of([detections((A, 0.9))], (A, B)) == 0.5  # one is missed
    assert precision_of([detections((C, 0.9))], (A,)) == 0
    assert precision_of([detections()], (A,)) == 0
    # Surest wrong: precisions 0, 1/2, 2/3; made monotone 2/3 at both recalls.
    assert precision_of([detections((C, 0.9), (A, 0.8), (B, 0.7))], (A, B)) == pytest.approx(2 / 3)
    # A second box for the same shape is wrong: precisions 1, 1/2, 2/3.
    twice = detections((A, 0.9), (A, 0.8), (B, 0.7))
    assert precision_of([twice], (A, B)) == pytest.approx((1 + 2 / 3) / 2)
    # Boxes of one image don't match another's, and scores are ranked over all images.
    two = [detections((B, 0.9)), detections((B, 0.5))]
    assert precision_of(two, (A,), (B,)) == pytest.approx(0.5 * 0.5)


def test_average_precision_needs_half_of_the_area():
    half, less = (0, 0, 10, 5), (0, 0, 10, 4)
    assert precision_of([detections((half, 0.9))], (A,)) == 1
    assert precision_of([detections((less, 0.9))], (A,)) == 0


def test_cells_give_their_boxes_back(scenes):
    targets = box_demo.encode(scenes)
    predictions = np.full((len(targets), 12, 12, 8), -20.0)
    inside = np.clip(targets[..., :5], 1e-6, 1 - 1e-6)
    predictions[..., :5] = np.log(inside / (1 - inside))
    predictions[..., 5:] = 9 * np.eye(3)[targets[..., 5].astype(int)]
    found = box_demo.decode(predictions)
    metrics = box_demo.examine([suppress(one) for one in found], scenes)
    assert metrics == {"box_ap": 1.0, "ap": 1.0}
    assert boxes.mean_iou(found, scenes.boxes) == pytest.approx(1, abs=1e-3)


def test_joint_loss_against_loops(scenes):
    import keras

    rng = np.random.default_rng(0)
    targets = box_demo.encode(scenes)[:3]
    predictions = rng.normal(size=(3, 12, 12, 8)).astype(np.float32)
    expected = np.zeros(3)
    for place in np.ndindex(3, 12, 12):
        wanted, given = targets[place], predictions[place].astype(float)
        probability = 1 / (1 + np.exp(-given[:5]))
        expected[place[0]] -= np.log(probability[0] if wanted[0] else 1 - probability[0])
        if wanted[0]:
            logits = given[5:]
            expected[place[0]] += 10 * np.abs(probability[1:] - wanted[1:5]).sum()
            expected[place[0]] += np.log(np.exp(logits).sum()) - logits[int(wanted[5])]
    loss = box_demo.joint_loss(keras.ops.convert_to_tensor(targets), predictions)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


# --- Segmentation --------------------------------------------------------------------------------


def test_iou_of_masks_and_contours_by_hand():
    truth = np.array([[[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]])
    moved = np.roll(truth, 1, axis=1)
    assert segmentation_demo.class_iou(moved, truth, 1) == pytest.approx(2 / 6)
    expected = np.ones((1, 5, 4), bool)
    expected[:, 4] = False
    np.testing.assert_array_equal(segmentation_demo.near_contours(truth), expected)


def test_networks_are_equal_but_for_the_skip():
    import keras

    labkit.prepare(0)
    inputs = keras.Input((48, 48, 3))
    networks = [
        keras.Model(inputs, segmentation_demo.probabilities_of(inputs, skip))
        for skip in (False, True)
    ]
    shapes_of = [[weight.shape for weight in network.weights] for network in networks]
    assert shapes_of[0] == shapes_of[1]
    assert networks[0].output.shape == networks[1].output.shape == (None, 48, 48, 4)


# --- Learning ------------------------------------------------------------------------------------


def silent_run() -> SimpleNamespace:
    import keras

    return SimpleNamespace(first_epoch=0, checkpoints=lambda model: keras.callbacks.Callback())


def few(count: int) -> shapes.Scenes:
    return shapes.scenes("train", count)


@pytest.mark.slow
def test_segmentation_learns_a_few_images_by_heart():
    labkit.prepare(0)
    scenes = few(4)
    model = segmentation_demo.build()
    config = segmentation_demo.Config(epochs=80, smoke=True)
    segmentation_demo.train(model, config, scenes, scenes, silent_run())
    probabilities = model.predict(scenes.images.astype(np.float32) / 255, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    predicted = probabilities.argmax(axis=-1)[..., 1]
    assert segmentation_demo.examine(predicted, scenes.masks, "x")["iou_x"] > 0.8


@pytest.mark.slow
def test_detector_learns_a_few_images_by_heart():
    labkit.prepare(0)
    scenes = few(4)
    model = box_demo.build()
    box_demo.train(model, box_demo.Config(epochs=60, smoke=True), scenes, scenes, silent_run())
    predictions = model.predict(scenes.images.astype(np.float32) / 255, verbose=0)
    found = [suppress(one) for one in box_demo.decode(predictions)]
    assert box_demo.examine(found, scenes)["box_ap"] > 0.8


@pytest.mark.parametrize("script", [segmentation_demo, box_demo])
def test_real_data_is_refused(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--data", "real"])
    assert stop.value.code == 2
    assert "generated" in capsys.readouterr().err


@pytest.mark.parametrize("script", [segmentation_demo, box_demo])
@pytest.mark.slow
def test_a_finished_run_is_not_repeated(script):
    first = script.main(["--smoke", "--data", "sample"])
    assert script.main(["--smoke", "--data", "sample", "--resume"]) == first
    assert all(isinstance(value, float) for value in first.values())
