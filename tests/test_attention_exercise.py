"""TP5's sentences with known deciding words, networks on them, script and evaluation."""

import json

import keras
import numpy as np
import pytest

import labkit
from tp5_seq2seq_attention import attention_exercise, evaluate
from tp5_seq2seq_attention.attention_exercise import Config, Trial, score
from tp5_seq2seq_attention.attention_models import BUILDERS
from tp5_seq2seq_attention.attention_report import conclusions, largest_recall
from tp5_seq2seq_attention.grammar import (
    BAD,
    COLOURS,
    FILLERS,
    GOOD,
    NAMES,
    NUMBER,
    TASKS,
    WORDS,
    Sentences,
    draw,
    labels_of,
)

SCRIPT = "tp5_seq2seq_attention.attention_exercise"

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
    assert part.tokens.shape == part.deciding.shape == (400, length)
    for row in range(400):
        words = part.words(row)
        assert 0.6 * length <= len(words) <= length
        label, places = rule(task, words)
        assert labels_of(task)[part.labels[row]] == label
        assert np.flatnonzero(part.deciding[row]).tolist() == places
        assert (part.tokens[row, len(words) :] == 0).all()
    counts = np.bincount(part.labels, minlength=len(labels_of(task)))
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
    bags = np.stack([np.bincount(row, minlength=len(WORDS)) for row in part.tokens])
    assert (bags[:, NUMBER["not"]] == 1).all()
    opinions = bags[:, [NUMBER[word] for word in GOOD + BAD]]
    assert (opinions.sum(axis=1) == 1).all()
    good = opinions[:, : len(GOOD)].any(axis=1)
    assert abs(np.mean(part.labels[good]) - 0.5) < 0.1


def test_the_parts_are_fixed_and_share_no_sentence():
    attention_exercise.sentences.cache_clear()
    few = attention_exercise.sentences("marked", 20, True)
    attention_exercise.sentences.cache_clear()
    again = attention_exercise.sentences("marked", 20, True)
    every = np.concatenate([part.tokens for part in few.values()])
    assert len(np.unique(every, axis=0)) == len(every)
    for part in few:
        np.testing.assert_array_equal(few[part].tokens, again[part].tokens)


def test_words_are_known_once():
    assert len(set(WORDS)) == len(WORDS)
    assert not set(FILLERS) & {*GOOD, *BAD, *COLOURS, *NAMES}
    with pytest.raises(ValueError, match="20 or more, got 12"):
        draw("recall", 1, 12, [0])


# --- Networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("network", BUILDERS)
def test_padding_changes_neither_label_nor_weights(network, asks):
    labkit.prepare(0)
    model = BUILDERS[network](24, 8, asks=asks)
    part = draw("recall", 12, 24, [0])
    found = model.predict(part.tokens, verbose=0)
    np.testing.assert_allclose(found["label"].sum(axis=1), 1, rtol=1e-5)
    if "weights" in found:
        assert (found["weights"][part.tokens == 0] == 0).all()
        np.testing.assert_allclose(found["weights"].sum(axis=1), 1, rtol=1e-5)
    row = int(np.argmin((part.tokens > 0).sum(axis=1)))
    if network != "handout":  # whose length is fixed
        longer = BUILDERS[network](None, 8, asks=asks)
        longer.set_weights(model.get_weights())
        alone = longer.predict(part.tokens[row : row + 1, : len(part.words(row))], verbose=0)
        np.testing.assert_allclose(alone["label"][0], found["label"][row], rtol=1e-4)


def test_scores_of_known_predictions():
    class Known:
        def predict(self, tokens, **_):
            return {"label": np.eye(8)[part.labels[: len(tokens)]], "weights": weights}

    part = draw("marked", 50, 30, [3])
    weights = part.deciding / 2
    found = score(Known(), part)
    assert found["accuracy"] == found["attention_recall"] == 1
    assert found["attention_entropy"] == pytest.approx(np.log(2))
    assert found["weight_on_padding"] == 0
    is_word = part.tokens > 0
    weights = is_word / is_word.sum(axis=1, keepdims=True)
    found = score(Known(), part)
    assert found["attention_recall"] == pytest.approx(found["uniform_recall"])
    assert found["uniform_recall"] == pytest.approx((2 / is_word.sum(axis=1)).mean())


def test_the_bound_of_the_handouts_attention():
    assert largest_recall(50) == pytest.approx(2 * np.e**2 / (2 * np.e**2 + 48))
    assert largest_recall(2) == pytest.approx(1)


def test_conclusions_are_those_of_the_figures():
    series = {
        "gru_marked50/test_accuracy": [0.2, 0.3],
        "attention_pairs_marked50/test_accuracy": [0.9, 1.0],
        "attention_pairs_marked50/test_weight_on_padding": [0.0, 0.0],
        "handout_marked50/test_accuracy": [0.5, 0.5],
        "handout_marked50/test_attention_recall": [0.1, 0.1],
    }
    scale = {"scaled_gradient_64": 0.3, "unscaled_gradient_64": 0.1}
    found = conclusions(series, {}, scale)
    assert "every seed of the first is above every seed" in found[0]
    assert "0.235 at most" in found[1]
    assert found[2] == "marked50: the largest weight on padding is 0."
    series["gru_marked50/test_accuracy"] = [0.2, 0.95]
    assert "the seeds overlap" in conclusions(series, {}, scale)[0]


@pytest.mark.slow
def test_attention_finds_the_words_that_decide(monkeypatch):
    monkeypatch.setattr(
        attention_exercise, "COUNTS", {"train": 10_000, "validation": 500, "test": 500}
    )
    attention_exercise.sentences.cache_clear()
    trial = Trial(
        task="marked", length=50, network="attention_pairs", seed=0, epochs=4, smoke=False,
        resume=False,
    )  # fmt: skip
    metrics = attention_exercise.run_trial("", trial)["metrics"]
    attention_exercise.sentences.cache_clear()
    assert metrics["test_accuracy"] >= 0.98
    assert metrics["test_attention_recall"] >= 0.95
    assert metrics["test_weight_on_padding"] == 0


def test_a_resumed_trial_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    options = {"task": "marked", "length": 20, "network": "attention_pairs", "seed": 1}
    trial = Trial(**options, epochs=2, smoke=True, resume=True)
    whole = attention_exercise.run_trial("", trial)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "other"))
    record_epoch = labkit.Run.record_epoch

    def interrupted(run, epoch, *rest):
        record_epoch(run, epoch, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(labkit.Run, "record_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attention_exercise.run_trial("", trial)
    resumed = attention_exercise.run_trial("", trial)
    assert resumed["examples"] == whole["examples"]
    assert resumed["history"] == whole["history"]
    for name, value in whole["metrics"].items():
        if "seconds" not in name:
            assert resumed["metrics"][name] == value, name


# --- The script ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_comparison_whole_and_examined():
    metrics = attention_exercise.main(["--smoke", "--ray-address", "off"])
    assert all(isinstance(value, float) for value in metrics.values())
    run = labkit.find_run(SCRIPT)
    files = {path.name for path in run.folder.iterdir()}
    assert {"attention_marked.png", "lengths_marked.png", "scale.png", "report.md"} <= files
    compared = json.loads((run.folder / "comparison.json").read_text())
    assert set(compared["floors"]) >= {
        "floor_majority_marked20",
        "floor_uniform_attention_marked20",
    }
    for name, sample in compared["series"].items():
        assert metrics[name] == pytest.approx(np.mean(sample))
    examined = evaluate.main(["--exercise", "attention"])
    for network in compared["folders"]:
        for metric in ("accuracy", "attention_recall"):
            if f"{network}/test_{metric}" in metrics:
                assert examined[f"{network}/{metric}"] == metrics[f"{network}/test_{metric}"]
        assert 0 <= examined[f"{network}/accuracy_without_deciding"] <= 1
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--exercise", "attention", "--data", "real"])
    assert attention_exercise.main(["--smoke", "--ray-address", "off", "--resume"]) == metrics


def test_erasing_words():
    part = draw("marked", 30, 20, [0])
    tokens = evaluate.erased(part, part.deciding, np.random.default_rng(0))
    np.testing.assert_array_equal(tokens != part.tokens, part.deciding)
    assert set(np.array(WORDS)[tokens[part.deciding]]) <= set(FILLERS)
    chosen = evaluate.most_attended(np.array([[0.1, 0.5, 0.0, 0.4]]), 2)
    np.testing.assert_array_equal(chosen, [[False, True, False, True]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--seeds", "0"], "--seeds must be 1 or more, got 0"),
        (["--data", "real"], "--data real: the sentences are generated"),
    ],
)
def test_impossible_settings_are_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        labkit.parse(Config, arguments)
    assert message in capsys.readouterr().err


def test_all_tasks_are_trials_with_names_that_are_allowed():
    trials = Config(task="all", seeds=2).trials()
    assert len(trials) == 2 * (9 + 5 + 5)  # only `marked` grows
    for trial in trials:
        assert trial.network in BUILDERS
        name = f"{trial.network}_{trial.task}{trial.length}-adam-crossentropy-s{trial.seed}"
        assert labkit.run.RUN_NAME.fullmatch(name)
    assert isinstance(draw("marked", 2, 20, [0]), Sentences)
    assert keras.backend.backend() == "tensorflow"
