"""TP5's sentences with known deciding words, the networks on them, and their comparison."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import labkit
from labkit.comparison import Outcome
from labkit.runs import RUN_NAME
from tp5_seq2seq_attention import attention_exercise, attention_report
from tp5_seq2seq_attention.attention_exercise import Config, NetworkTrial
from tp5_seq2seq_attention.attention_measures import score
from tp5_seq2seq_attention.attention_models import BUILDERS
from tp5_seq2seq_attention.attention_scale import measure_scale, scale_in_words
from tp5_seq2seq_attention.grammar import (
    BAD,
    COLOURS,
    FILLERS,
    GOOD,
    NAMES,
    NUMBER,
    TASKS,
    WORDS,
    draw,
    labels_of,
    load,
)

SCRIPT = "tp5_seq2seq_attention.attention_exercise"


def trial_of(network: str, seed: int = 0, length: int = 20, epochs: int = 4) -> NetworkTrial:
    return NetworkTrial(
        configuration=f"{network}_marked{length}", task="marked", length=length, network=network,
        seed=seed, epochs=epochs,
    )  # fmt: skip


# --- Sentences -----------------------------------------------------------------------------------


def rule(task: str, words: list[str]) -> tuple[str, list[int]]:
    """Label and deciding places, worked out from the words alone."""
    if task == "negation":
        place = next(i for i, word in enumerate(words) if word in GOOD + BAD)
        positive = (words[place] in GOOD) != (words[place - 1] == "not")
        return "positive" if positive else "negative", [place - 1, place]
    if task == "marked":
        place = words.index("*")
        return words[place + 1], [place, place + 1]
    assert words[-2] == "?"
    place = words.index(words[-1])
    return words[place + 1], [place, place + 1]


@pytest.mark.parametrize("length", [20, 50])
@pytest.mark.parametrize("task", TASKS)
def test_the_label_follows_from_the_deciding_words(task, length):
    part = draw(task, 400, length, [0])
    assert part.x.shape == part.deciding.shape == (400, length)
    for row in range(400):
        words = part.words(row)
        assert 0.6 * length <= len(words) <= length
        label, places = rule(task, words)
        assert labels_of(task)[part.y[row]] == label
        assert np.flatnonzero(part.deciding[row]).tolist() == places
        assert (part.x[row, len(words) :] == 0).all()
    counts = np.bincount(part.y, minlength=len(labels_of(task)))
    assert (counts > 0.6 * counts.mean()).all()


@pytest.mark.parametrize("task", TASKS)
def test_only_the_deciding_words_decide(task):
    """Fillers in the place of any other word leave the label as it is."""
    part = draw(task, 100, 30, [1])
    for row in range(100):
        words = part.words(row)
        label, places = rule(task, words)
        kept = {*places, *([len(words) - 1, len(words) - 2] if task == "recall" else ())}
        changed = [word if place in kept else "the" for place, word in enumerate(words)]
        assert rule(task, changed)[0] == label


def test_a_bag_of_words_says_nothing_about_a_negation():
    part = draw("negation", 500, 40, [2])
    bags = np.stack([np.bincount(row, minlength=len(WORDS)) for row in part.x])
    assert (bags[:, NUMBER["not"]] == 1).all()
    opinions = bags[:, [NUMBER[word] for word in GOOD + BAD]]
    assert (opinions.sum(axis=1) == 1).all()
    good = opinions[:, : len(GOOD)].any(axis=1)
    assert abs(np.mean(part.y[good]) - 0.5) < 0.1


@pytest.mark.parametrize("task", TASKS)
def test_the_parts_are_fixed_and_share_no_sentence(task):
    few = load("auto", True, task, 20)
    parts = [few.train, few.validation, few.test]
    every = np.concatenate([part.x for part in parts])
    assert len(np.unique(every, axis=0)) == len(every) == 3 * 64
    again = load.__wrapped__("auto", True, task, 20)
    for part, other in zip(parts, [again.train, again.validation, again.test], strict=True):
        np.testing.assert_array_equal(part.x, other.x)
    assert few.source == f"simulated:{task}"


def test_words_are_known_once():
    assert len(set(WORDS)) == len(WORDS)
    assert not set(FILLERS) & {*GOOD, *BAD, *COLOURS, *NAMES}
    with pytest.raises(ValueError, match="20 or more, got 12"):
        draw("recall", 1, 12, [0])


# --- Networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "asks"),
    [*((name, False) for name in BUILDERS), ("attention_states", True), ("attention_pairs", True)],
)
def test_padding_changes_neither_label_nor_weights(network, asks):
    labkit.prepare(0)
    model = BUILDERS[network](24, 8, asks=asks)
    part = draw("recall", 12, 24, [0])
    found = {name: np.array(value) for name, value in model(part.x).items()}
    np.testing.assert_allclose(found["label"].sum(axis=1), 1, rtol=1e-5)
    if "weights" in found:
        assert (found["weights"][part.x == 0] == 0).all()
        np.testing.assert_allclose(found["weights"].sum(axis=1), 1, rtol=1e-5)
    row = int(np.argmin((part.x > 0).sum(axis=1)))
    if network != "handout":  # whose length is fixed
        longer = BUILDERS[network](None, 8, asks=asks)
        longer.set_weights(model.get_weights())
        alone = longer(part.x[row : row + 1, : len(part.words(row))])
        np.testing.assert_allclose(alone["label"][0], found["label"][row], rtol=1e-4)


def test_scores_of_known_predictions():
    class Known:
        def predict(self, tokens, **_):
            return {"label": np.eye(8)[labels[: len(tokens)]], "weights": weights}

    part = draw("marked", 50, 30, [3])
    labels, weights = part.y, part.deciding / 2
    found = score(Known(), part)
    assert found["accuracy"] == found["attention_recall"] == 1
    assert found["attention_entropy"] == pytest.approx(np.log(2))
    assert found["weight_on_padding"] == 0
    is_word = part.x > 0
    weights = is_word / is_word.sum(axis=1, keepdims=True)
    labels = np.where(np.arange(50) < 10, (part.y + 1) % 8, part.y)
    found = score(Known(), part)
    assert found["accuracy"] == 0.8
    assert found["attention_recall"] == pytest.approx(found["uniform_recall"])
    assert found["uniform_recall"] == pytest.approx((2 / is_word.sum(axis=1)).mean())
    weights = np.full(part.x.shape, 1 / 30)
    assert score(Known(), part)["weight_on_padding"] == 1 / 30


def run_of(trial: NetworkTrial):
    """A run to train in, kept out of the tracking store."""
    name = trial.run_name
    return labkit.start_run(attention_exercise.__file__, trial, "simulated:x", name, part="trial")


def test_attention_finds_the_words_that_decide():
    sealed = SimpleNamespace(open=lambda: draw("marked", 500, 20, [9]))
    data = replace(load("auto", False, "marked", 20), test=sealed)
    trial = trial_of("attention_pairs", epochs=4)
    with run_of(trial) as run:
        metrics = attention_exercise.study(trial, data, run)
    assert metrics["test_accuracy"] >= 0.98
    assert metrics["test_attention_recall"] >= 0.95
    assert metrics["test_weight_on_padding"] == 0


@pytest.mark.parametrize("solved", ["training", "validation"])
def test_a_training_ends_early_where_validation_is_solved(solved, monkeypatch):
    """One part has a single label; six of the other's 64 labels are wrong."""
    monkeypatch.setattr(attention_exercise, "BATCH_SIZE", 8)
    data = load("auto", True, "marked", 20)
    one = np.zeros(64, np.int32)
    wrong = np.where(np.arange(64) < 6, np.arange(64) % 5 + 1, 0).astype(np.int32)
    training, validation = (one, wrong) if solved == "training" else (wrong, one)
    data = replace(
        data,
        train=replace(data.train, y=training),
        validation=replace(data.validation, y=validation),
    )
    trial = trial_of("mean", epochs=6)
    with run_of(trial) as run:
        attention_exercise.train(trial, data, run)
    epochs = len(run.history["loss"])
    if solved == "training":
        assert max(run.history["accuracy"][:-1]) >= attention_exercise.SOLVED
        assert epochs == 6
    else:
        assert max(run.history["accuracy"]) < attention_exercise.SOLVED
        assert np.argmax(np.array(run.history["val_accuracy"]) >= attention_exercise.SOLVED) == (
            epochs - 1
        )
        assert epochs < 6


# --- The comparison ------------------------------------------------------------------------------


def outcomes_of(found: dict[str, dict[str, list[float]]]) -> list[Outcome]:
    """Outcomes on `marked` sentences of 50 words: metric, network, a value for each seed."""
    networks = next(iter(found.values()))
    return [
        Outcome(
            trial_of(network, seed, 50),
            {
                metric: samples[network][seed]
                for metric, samples in found.items()
                if network in samples
            },
            {}, "", None,
        )
        for network in networks for seed in range(2)
    ]  # fmt: skip


FOUND = {
    "test_accuracy": {"gru": [0.2, 0.3], "attention_pairs": [0.9, 1.0], "handout": [0.5, 0.5]},
    "test_attention_recall": {"attention_pairs": [0.8, 0.9], "handout": [0.1, 0.1]},
    "test_weight_on_padding": {"attention_pairs": [0.0, 0.25], "handout": [0.0, 0.0]},
}


def test_the_bound_of_the_handouts_attention():
    assert attention_report.largest_recall(50) == pytest.approx(2 * np.e**2 / (2 * np.e**2 + 48))
    assert attention_report.largest_recall(2) == pytest.approx(1)


def test_conclusions_are_those_of_the_figures():
    scale = measure_scale((64,))
    floors = {"floor_majority_marked50": 0.12}
    pairs, handout, padding, *gradients = attention_report.conclusions(
        outcomes_of(FOUND), floors, scale
    )
    assert pairs.startswith("marked50: attention over pairs is right in 0.950 ± 0.071 (n = 2)")
    assert "the GRU alone in 0.250 ± 0.071 (n = 2)" in pairs
    assert "every seed of the first is above every seed" in pairs
    assert "has 0.100 ± 0.000 (n = 2) on the deciding words at an accuracy of 0.500" in handout
    assert "0.235 at most" in handout
    assert padding == "marked50: the largest weight on padding is 0.25."
    assert gradients == scale_in_words(scale)


def test_seeds_that_are_not_one_cloud_are_printed_one_by_one():
    found = FOUND | {"test_accuracy": FOUND["test_accuracy"] | {"gru": [0.2, 0.95]}}
    floors = {"floor_majority_marked50": 0.12}
    pairs = attention_report.conclusions(outcomes_of(found), floors, measure_scale((4,)))[0]
    assert pairs.endswith("the GRU alone in 0.200 / 0.950: the seeds overlap.")


def test_a_network_that_never_learns_is_named():
    found = FOUND | {"test_accuracy": FOUND["test_accuracy"] | {"gru": [0.12, 0.13]}}
    told = attention_report.conclusions(
        outcomes_of(found), {"floor_majority_marked50": 0.12}, measure_scale((4,))
    )
    assert "marked50: gru never learns the task, 0.125 ± 0.007 (n = 2) beside 0.120" in told[1]
    better = attention_report.conclusions(
        outcomes_of(FOUND), {"floor_majority_marked50": 0.12}, measure_scale((4,))
    )
    assert not any("never learns" in sentence for sentence in better)


def test_the_figures_show_every_seed_and_what_decides():
    accuracy, recall = attention_report.length_figure(outcomes_of(FOUND)).axes
    shown = [line.get_ydata() for line in accuracy.get_lines() if line.get_marker() == "o"]
    np.testing.assert_array_equal(shown, list(FOUND["test_accuracy"].values()))
    shown = [line.get_ydata() for line in recall.get_lines() if line.get_marker() == "o"]
    np.testing.assert_array_equal(shown, list(FOUND["test_attention_recall"].values()))
    part = draw("marked", 2, 20, [0])
    weights = {"handout": np.full((2, 20), 0.05), "attention_pairs": part.deciding / 2}
    for row, axis in enumerate(attention_report.heat_figure("marked", part, weights).axes):
        count = len(part.words(row))
        words = [label.get_text() for label in axis.get_xticklabels()]
        assert words == part.words(row)
        image = axis.images[0].get_array()
        np.testing.assert_array_equal(image, [np.ones(count), part.deciding[row, :count]])
        framed = [patch.get_extents().get_points() for patch in axis.patches]
        left = axis.transData.inverted().transform([points[0] for points in framed])[:, 0]
        np.testing.assert_allclose(left + 0.5, np.flatnonzero(part.deciding[row]), atol=1e-6)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, empty_store) -> Path:
    """Outputs of a smoke run of the script."""
    home = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(home))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setattr(attention_exercise, "LENGTH", 20)
        attention_exercise.main(["--smoke", "--ray-address", "off"])
    return home / "outputs"


def test_the_series_hold_each_seeds_value_in_its_place(compared):
    content = json.loads(next(compared.glob(f"{SCRIPT}/*/comparison.json")).read_text())
    assert content["seeds"] == [0, 1]
    states = [
        json.loads(path.read_text()) for path in compared.glob(f"{SCRIPT}.trial/*/state.json")
    ]
    assert {state["config"]["configuration"] for state in states} == set(content["folders"])
    for state in states:
        name, seed = state["config"]["configuration"], state["config"]["seed"]
        for metric, value in state["metrics"].items():
            assert content["series"][f"{name}/{metric}"][seed] == value, metric
    for name, folder in content["folders"].items():
        state = json.loads((compared / folder / "state.json").read_text())
        assert (state["config"]["configuration"], state["config"]["seed"]) == (name, 0)


def test_the_report_has_floors_and_recall_and_only_where_there_is_attention(compared):
    (folder,) = compared.glob(f"{SCRIPT}/*")
    floors = json.loads((folder / "comparison.json").read_text())["floors"]
    data = load("auto", True, "marked", 20)
    labels = data.train.y.tolist()
    majority = max(range(8), key=labels.count)
    assert floors["floor_majority_marked20"] == np.mean(data.test.y == majority)
    recalls = [2 / len(data.test.words(row)) for row in range(64)]
    assert floors["floor_uniform_attention_marked20"] == pytest.approx(np.mean(recalls))
    table, recall = (folder / "report.md").read_text().split("| attention recall |")
    assert "| mean_marked20 |" in table
    assert "| attention_pairs_marked20 |" in table
    assert f"uniform attention marked20: {np.mean(recalls):.4f}" in table
    assert "| attention_pairs_marked20 |" in recall
    assert "mean_marked20" not in recall
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == {"attention_marked", "curves_marked", "lengths_marked", "scale"}


def test_a_trial_keeps_its_network_and_where_it_looks(compared):
    (trial,) = compared.glob(f"{SCRIPT}.trial/*attention_pairs*-s0-*")
    test = load("auto", True, "marked", 20).test
    model = keras.saving.load_model(trial / "model.keras")
    metrics = json.loads((trial / "state.json").read_text())["metrics"]
    for name, value in score(model, test).items():
        assert metrics[f"test_{name}"] == pytest.approx(value, abs=1e-6)
    weights = np.array(json.loads((trial / "examples.json").read_text()))
    assert weights.shape == (3, 20)
    assert (weights[test.x[:3] == 0] == 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    (without,) = compared.glob(f"{SCRIPT}.trial/*-mean_*-s0-*")
    assert json.loads((without / "examples.json").read_text()) == []


def test_all_tasks_are_trials_with_names_that_are_allowed():
    trials = Config(task="all", seeds=2).trials()
    assert len(trials) == 2 * (9 + 5 + 5)  # only `marked` grows
    assert len({trial.run_name for trial in trials}) == len(trials)
    for trial in trials:
        assert trial.network in BUILDERS
        assert trial.configuration == f"{trial.network}_{trial.task}{trial.length}"
        assert RUN_NAME.fullmatch(trial.run_name)
        assert trial.purpose == "report"  # nothing is chosen here
