"""TP4's volumes: no slice shows the handedness, Conv3D learns it, costs are counted and tracked."""

import json
from dataclasses import replace

import keras
import mlflow
import numpy as np
import pytest

import labkit
from labkit import tracking
from labkit.comparison import compared
from labkit.datasets import Part
from tp4_unet_conv3d import conv3d_analysis, conv3d_cost, conv3d_models
from tp4_unet_conv3d.conv3d_analysis import Config, score, targets, to_input, turned
from tp4_unet_conv3d.conv3d_cost import Setting
from tp4_unet_conv3d.volumes import (
    LEFT,
    RIGHT,
    SIZE,
    draw_scene,
    helices,
    mirrored_pairs,
    render,
    slices_figure,
)

SCRIPT = "tp4_unet_conv3d.conv3d_analysis"


def scene(seed: int):
    return draw_scene(np.random.default_rng(seed))


# --- The task ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_the_opposite_helix_has_the_same_slices_in_reverse_order(seed):
    """So left and right volumes are made of the same slices: no bag of slices can tell them."""
    one, other = scene(seed), scene(seed).mirrored()
    assert {one.handedness, other.handedness} == {LEFT, RIGHT}
    np.testing.assert_array_equal(render(other), render(one)[::-1])


@pytest.mark.parametrize("depth", [2, 16, 27])
def test_any_one_slice_is_shown_by_both_hands(depth):
    """Another phase, which is as probable, puts the opposite helix at the same place here."""
    one = scene(depth)
    sign = 1 if one.handedness == RIGHT else -1
    turn = 2 * sign * 2 * np.pi * (depth - (SIZE - 1) / 2) / one.pitch
    other = replace(one, handedness=1 - one.handedness, phase=one.phase + turn)
    differences = np.abs(render(one).astype(int) - render(other))
    assert differences[depth].max() <= 1  # rounding
    assert differences.max() > 50


def test_a_scene_and_its_mirror_image_are_equally_probable():
    """Every number that the mirror changes is drawn from a distribution symmetric about 0."""
    scenes = [scene(seed) for seed in range(600)]
    samples = {
        "handedness": [2 * each.handedness - 1 for each in scenes],
        "tilt": [each.tilt[0] for each in scenes],
        "extent": [each.extent.sum() for each in scenes],
        "rod's depth": [each.rods[0, 0] for each in scenes],
        "rod's slope": [each.rods[0, 3] for each in scenes],
    }
    for name, values in samples.items():
        assert abs(np.mean(values)) < 3.5 * np.std(values) / np.sqrt(len(values)), name


def winding(volume: np.ndarray) -> float:
    """Turn from slice to slice of the brightest place around the axis, in radians."""
    smooth = volume.astype(float) - np.median(volume)
    grid = np.arange(SIZE)
    weights = np.clip(smooth, 30, None) - 30
    z = (weights * grid[None, None, :]).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    y = (weights * grid[None, :, None]).sum(axis=(1, 2)) / weights.sum(axis=(1, 2))
    angle = np.unwrap(np.arctan2(y - y.mean(), z - z.mean()))
    return angle[-1] - angle[0]


def test_the_label_is_the_sense_of_the_turn():
    for seed in range(6):
        plain = replace(
            scene(seed), rods=np.empty((0, 8)), noise=np.zeros((SIZE,) * 3, np.float32),
            tilt=np.zeros(2), extent=np.array([-20, 20]),
        )  # fmt: skip
        assert (winding(render(plain)) > 0) == (plain.handedness == RIGHT)


def test_volumes_are_fixed():
    few, more = helices(6, 4, 4), helices(9, 4, 4)
    np.testing.assert_array_equal(few.train.x, more.train.x[:6])
    assert few.source != more.source
    assert few.source.startswith("simulated:")


@pytest.mark.parametrize("task", ["helix", "organ"])
def test_no_volume_is_in_two_parts(task):
    data = conv3d_analysis.load("sample", True, task)
    every = np.concatenate([data.train.x, data.validation.x, data.test.x])
    assert len(every) == len(np.unique(every.reshape(len(every), -1), axis=0))
    for part in (data.train, data.validation, data.test):
        assert len(part.x) == len(part.y)
        assert set(part.y) <= set(range(len(data.classes)))


def test_turns_keep_the_handedness():
    volume, label = render(scene(1))[None], np.array([[1.0]])
    turns = [turned(volume, label, np.random.default_rng(seed)) for seed in range(60)]
    seen = {moved.tobytes() for moved, _ in turns}
    assert all(np.array_equal(kept, label) for _, kept in turns)
    assert len(seen) == 8  # the turns that keep the depth axis
    assert to_input(volume).tobytes() in seen
    for axis in (1, 2, 3):
        assert to_input(np.flip(volume, axis)).tobytes() not in seen  # mirror images


def test_targets_are_what_the_losses_take():
    np.testing.assert_array_equal(targets(np.array([0, 1]), 2), [[0], [1]])
    np.testing.assert_array_equal(targets(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])


def test_shown_are_helices_and_their_mirror_images():
    shown = mirrored_pairs(("left", "right"))
    assert [name.split(":")[0] for name in shown] == ["A", "A mirrored", "B", "B mirrored"]
    volumes = list(shown.values())
    for one, other in ((0, 1), (2, 3)):
        assert [*shown][one].split()[-1] != [*shown][other].split()[-1]
        np.testing.assert_array_equal(volumes[one], volumes[other][::-1])
    figure = slices_figure(shown)
    assert [axis.get_ylabel() for axis in figure.axes[:36:9]] == [*shown]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), volumes[0][3])
    assert figure.axes[0].get_title() == "slice 3"


# --- The networks --------------------------------------------------------------------------------


def test_the_handouts_network_has_its_30689_parameters():
    labkit.prepare(0)
    model = conv3d_models.build_conv3d()
    assert model.count_params() == 448 + 13_856 + 16_385 == 30_689
    assert [layer.__class__.__name__ for layer in model.layers[1:]] == [
        "Conv3D", "MaxPooling3D", "Conv3D", "MaxPooling3D", "Flatten", "Dense",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        ("conv2plus1d", 160 + 784 + 4_640 + 3_104 + 16_385),
        ("slices", 160 + 4_640 + 2_049),
        ("middle", 160 + 4_640 + 2_049),
        ("channels", 32 * 9 * 16 + 16 + 4_640 + 2_049),
    ],
)
def test_the_compared_networks_have_the_same_stages(network, parameters):
    labkit.prepare(0)
    assert conv3d_models.BUILDERS[network]().count_params() == parameters


def test_eleven_classes_end_in_probabilities():
    labkit.prepare(0)
    x = to_input(render(scene(0))[None, 2:30, 2:30, 2:30])
    for build in conv3d_models.BUILDERS.values():
        outputs = np.array(build((28, 28, 28), filters_start=2, classes=11)(x))
        assert outputs.shape == (1, 11)
        assert outputs.sum() == pytest.approx(1, rel=1e-5)


def test_the_slice_models_cannot_tell_a_volume_from_its_mirror_image():
    labkit.prepare(0)
    x = to_input(np.stack([render(scene(seed)) for seed in range(3)]))
    slices = conv3d_models.build_slices(filters_start=4)
    np.testing.assert_allclose(slices(x), slices(x[:, ::-1]), rtol=1e-4)
    shuffled = x[:, np.random.default_rng(0).permutation(SIZE)]
    np.testing.assert_allclose(slices(x), slices(shuffled), rtol=1e-4)
    volumes = conv3d_models.build_conv3d(filters_start=4)
    assert np.abs(volumes(x) - volumes(x[:, ::-1])).max() > 1e-3


def test_conv3d_learns_16_volumes_by_heart():
    labkit.prepare(0)
    x = np.stack([render(scene(seed))[8:20, 8:20, 8:20] for seed in range(16)])
    y = np.arange(16)[:, None] % 2
    model = conv3d_models.build_conv3d((12, 12, 12), filters_start=8)
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy", jit_compile=False)
    model.fit(to_input(x), y, epochs=30, batch_size=16, verbose=0)
    found = score(model, Part(x, y[:, 0]))
    assert found == {"loss": pytest.approx(0, abs=0.2), "accuracy": 1, "auc": 1}


def test_activations_are_counted_by_hand():
    labkit.prepare(0)
    values = 32**3 + 32**3 * 16 + 16**3 * 16 + 16**3 * 32 + 8**3 * 32 + 1
    assert conv3d_models.activation_bytes(conv3d_models.build_conv3d()) == 4 * values


# --- Cost ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "parameters"),
    [
        (Setting(kernel=5, filters=2, depth=8), 252 + 1_004 + 513),
        (Setting("conv2plus1d", filters=2, depth=8), 20 + 14 + 76 + 52 + 513),
    ],
)
def test_what_is_measured_is_the_network_of_the_setting(setting, parameters, monkeypatch):
    stepped, train_on_batch = [], keras.Model.train_on_batch

    def watched(model, x, *rest):
        stepped.append((model.count_params(), x.shape))
        return train_on_batch(model, x, *rest)

    monkeypatch.setattr(keras.Model, "train_on_batch", watched)
    found = conv3d_cost.measure(setting, repeats=2)
    assert found["parameters"] == parameters
    # After the tiny network's, two steps to warm up and two that are timed.
    assert stepped[1:] == [(parameters, (8, setting.depth, 32, 32, 1))] * 4
    assert found["step_ms"] > 0


def test_a_step_is_measured_in_a_process_of_its_own():
    found = conv3d_cost.measure_apart(Setting(filters=8), repeats=1)
    assert found["parameters"] == 224 + 3_472 + 8_193
    assert found["step_ms"] > 0
    assert found["activation_mb"] == pytest.approx(8 * 4 * 401_409 / 2**20)
    if "peak_mb" in found:
        assert found["peak_mb"] > found["activation_mb"] / 2


def test_every_setting_is_measured_once_and_drawn():
    settings = conv3d_cost.SETTINGS
    assert len(settings) == len(set(settings)) == 3 * 3 + 1 + 1
    rows = [
        vars(setting) | {"parameters": 1000, "activation_mb": 2.0, "peak_mb": 5.0, "step_ms": 7.0}
        for setting in settings
    ]
    table = conv3d_cost.cost_table(rows).splitlines()
    assert len(table) == 2 + len(rows)
    assert table[2] == "| conv3d | 1 | 16 | 32 | 1,000 | 2.0 | 5 | 7 |"
    figure = conv3d_cost.cost_figure(rows)
    assert [len(axis.lines[0].get_xdata()) for axis in figure.axes] == [4] * 6


# --- The script ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoked(tmp_path_factory):
    """One smoke run, for all tests that look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(tmp_path_factory.mktemp("conv3d")))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("LABKIT_DATA", raising=False)
        metrics = conv3d_analysis.main(["--smoke"])
        yield metrics, labkit.find_run(SCRIPT)


def test_the_handouts_names_are_tracked(smoked, home, monkeypatch):
    metrics, run = smoked
    monkeypatch.setenv("LABKIT_HOME", str(run.folder.parents[2]))
    tracking.open_store("3D_Volumetric_Analysis")
    runs = mlflow.search_runs(experiment_names=["3D_Volumetric_Analysis"])
    parent = runs[runs["tags.mlflow.runName"] == "Conv3D_Baseline"].iloc[0]
    children = runs[runs["tags.mlflow.parentRunId"] == parent["run_id"]]
    names = [f"{net}-adam-crossentropy-s{seed}" for net in ("conv3d", "slices") for seed in (0, 1)]
    assert sorted(children["tags.mlflow.runName"]) == names
    assert set(runs["status"]) == {"FINISHED"}
    assert (parent["params.optimizer"], parent["params.filters_start"]) == ("adam", "16")
    assert parent["metrics.final_val_loss"] == metrics["conv3d/validation_loss"]
    logged = mlflow.artifacts.load_dict(
        f"{parent['artifact_uri']}/artifacts/model_architecture.json"
    )
    rebuilt = keras.models.model_from_json(json.dumps(logged["model_config"]))
    assert rebuilt.count_params() == 30_689


def test_what_a_run_leaves(smoked):
    metrics, run = smoked
    assert {"examples.png", "curves.png"} <= {path.name for path in run.folder.iterdir()}
    content = compared(run)
    assert set(content["floors"]) == {"floor_majority", "floor_logistic_regression"}
    assert content["series"]["conv3d/parameters"] == [30_689] * 2
    losses = content["series"]["conv3d/validation_loss"]
    assert metrics["final_val_loss"] == metrics["conv3d/validation_loss"] == np.mean(losses)
    assert [row["filters"] for row in content["details"]["cost"]] == [2]
    report = (run.folder / "report.md").read_text()
    assert f"- floor, majority: {content['floors']['floor_majority']:.4f}" in report
    accuracy = 100 * metrics["conv3d/test_accuracy"]
    assert f"- conv3d: {accuracy:.1f} ±" in report
    assert "| conv3d | 3 | 2 | 8 |" in report


def test_organs_have_an_eleven_class_network(monkeypatch):
    monkeypatch.setattr(conv3d_analysis, "NETWORKS", ("conv3d",))
    monkeypatch.setattr(conv3d_analysis, "costs", lambda run, smoke: [])
    arguments = ["--task", "organ", "--data", "sample", "--smoke", "--filters-start", "2"]
    metrics = conv3d_analysis.main(arguments)
    assert 0 <= metrics["conv3d/test_auc"] <= 1
    assert metrics["conv3d/parameters"] == 56 + 220 + 7**3 * 4 * 11 + 11


def test_the_area_under_the_curve_is_the_mean_over_classes():
    class Fixed:
        def predict(self, x, **options):
            return np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]])

    found = score(Fixed(), Part(np.zeros((4, 2, 2, 2), np.uint8), np.array([0, 1, 0, 2])))
    # Class 0: of 2 x 2 pairs all ordered; class 1: 2 of 3; class 2: 3 of 3.
    assert found["auc"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx(-np.log([0.7, 0.4, 0.4, 0.8]).mean())


def test_one_sigmoid_is_the_probability_of_the_second_class():
    class Fixed:
        def predict(self, x, **options):
            return np.array([[0.9], [0.6], [0.7], [0.2]])

    found = score(Fixed(), Part(np.zeros((4, 2, 2, 2), np.uint8), np.array([1, 1, 0, 0])))
    assert found["auc"] == 3 / 4  # of the 2 x 2 pairs one is in the wrong order
    assert found["accuracy"] == 0.75
    assert found["loss"] == pytest.approx(-np.log([0.9, 0.6, 0.3, 0.8]).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--filters-start", "0"], "--filters-start must be 1 or more, got 0"),
        (["--seeds", "1"], "--seeds must be 2 or more, got 1"),
        (["--file", "a.npz"], "--file is for --task organ and nodule"),
        (["--data", "real"], "--data real is for --task organ and nodule"),
    ],
)
def test_impossible_settings_are_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        labkit.parse(Config, arguments)
    assert message in capsys.readouterr().err
