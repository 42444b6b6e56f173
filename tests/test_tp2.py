"""TP2: what each training measures, the hand-out's numbers, the diagnosis, folding, the page."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import keras
import mlflow
import numpy as np
import pytest
from scipy import stats

import labkit
from labkit import comparison, results, tracking
from labkit.comparison import Outcome, SealedTest
from tests.conftest import ROOT
from tools import tables
from tp1_mnist_api import digits
from tp1_mnist_api.digits import to_input
from tp2_improvement import batchnorm_report, evaluate, experiments, training
from tp2_improvement import tp2_ex1_bias_variance as diagnosis
from tp2_improvement import tp2_ex2_regularization as regularization
from tp2_improvement import tp2_ex3_optimizers as optimizers
from tp2_improvement import tp2_ex4_batchnorm as batchnorm

COMMON = {
    "configuration": "x", "purpose": "report", "epochs": 3, "seed": 0, "data": "sample",
    "smoke": False, "keep": True,
}  # fmt: skip
TRIALS = {  # settings in which a wrong measure shows: few images, a large penalty
    diagnosis: diagnosis.DiagnosisTrial(**COMMON, images=20),
    regularization: regularization.RegularizerTrial(**COMMON, l2=0.1, dropout=0.5),
    optimizers: optimizers.OptimizerTrial(**COMMON, optimizer="momentum", learning_rate=0.1),
    batchnorm: batchnorm.NormalizationTrial(**COMMON, placement="after", learning_rate=0.001),
}


@pytest.fixture(scope="module")
def data() -> labkit.Data:
    return digits.load("sample", True, "stratified")


# --- What a training measures --------------------------------------------------------------------


@dataclass
class Studied:
    """One training, and what `fit()` was given."""

    run: labkit.Run
    metrics: dict[str, float] = field(default_factory=dict)
    fits: list[SimpleNamespace] = field(default_factory=list)


class EnoughError(Exception):
    """`fit()` was called; nothing more is wanted."""


def studied(
    script: ModuleType, data: labkit.Data, folder: Path, stop: bool = False, **changes
) -> Studied:
    """Train the script's trial, with `changes`, in `folder`, or `stop` before the first step."""
    folder.mkdir()
    trial = replace(TRIALS[script], **changes)
    found = Studied(labkit.Run(folder, {"metrics": {}, "status": "RUNNING"}))
    fit = keras.Model.fit

    def watched(model, x, y, **settings):
        optimizer, weights = model.optimizer, model.get_weights()
        steps = int(optimizer.iterations)
        found.fits.append(
            SimpleNamespace(x=x, y=y, weights=weights, optimizer=optimizer, steps=steps)
        )
        if stop:
            raise EnoughError
        return fit(model, x, y, **settings)

    sealed = replace(data, test=SealedTest(data.test, trial.purpose))
    with pytest.MonkeyPatch.context() as patch, suppress(EnoughError):
        patch.setattr(keras.Model, "fit", watched)
        found.metrics = script.study(trial, sealed, found.run)
    return found


@pytest.fixture(scope="module", params=TRIALS, ids=lambda script: script.__name__)
def script(request) -> ModuleType:
    return request.param


@pytest.fixture(scope="module")
def reported(script, data, tmp_path_factory) -> Studied:
    return studied(script, data, tmp_path_factory.mktemp("reported") / "run")


@pytest.fixture(scope="module")
def swept(script, data, tmp_path_factory) -> Studied:
    changes = {"purpose": "choose", "keep": False, "seed": 1, "epochs": 1}
    return studied(script, data, tmp_path_factory.mktemp("swept") / "run", **changes)


def cross_entropy_and_accuracy(model: keras.Model, x: np.ndarray, y: np.ndarray):
    probabilities = np.asarray(model(x, training=False), dtype=np.float64)
    found = np.mean(probabilities.argmax(axis=1) == y)
    return -np.log(probabilities[np.arange(len(y)), y]).mean(), found


def test_figures_are_of_the_images_that_they_are_said_to_be_of(reported, data):
    """Computed anew from the saved network: without dropout, without the penalty of L2."""
    model = keras.saving.load_model(reported.run.folder / "model.keras")
    (fit,) = reported.fits
    x_train, once = np.unique(fit.x, axis=0, return_index=True)
    parts = {
        "train": (x_train, fit.y[once]),
        "validation": (to_input(data.validation.x), data.validation.y),
        "test": (to_input(data.test.x), data.test.y),
    }
    expected = {part: cross_entropy_and_accuracy(model, *images) for part, images in parts.items()}
    assert len({round(entropy, 4) for entropy, _ in expected.values()}) == 3
    for part in ("train", "validation"):
        entropy, accuracy = expected[part]
        assert reported.metrics[f"{part}_cross_entropy"] == pytest.approx(entropy, rel=1e-4)
        assert reported.metrics[f"{part}_accuracy"] == pytest.approx(accuracy)
        assert reported.run.history[f"{part}_accuracy"][-1] == pytest.approx(accuracy)
    assert reported.metrics["test_accuracy"] == pytest.approx(expected["test"][1])
    seconds = reported.run.history["seconds"]
    assert 0 < seconds[0] < seconds[1] < seconds[2] == reported.metrics["train_seconds"]


def test_with_few_images_each_is_shown_more_often(data, tmp_path):
    (fit,) = studied(diagnosis, data, tmp_path / "run", stop=True).fits
    assert len(fit.x) == len(data.train)
    assert len(np.unique(fit.x, axis=0)) == 20


def test_a_sweep_leaves_the_test_images_alone_and_saves_no_network(swept):
    assert "validation_accuracy" in swept.metrics
    assert "test_accuracy" not in swept.metrics
    assert not list(swept.run.folder.rglob("*.keras"))


def test_each_training_has_its_own_seed_and_a_new_optimizer(
    script, reported, swept, data, tmp_path
):
    again = studied(script, data, tmp_path / "run", stop=True)
    (first,), (second,), (other,) = reported.fits, again.fits, swept.fits
    for fit in (first, second, other):
        assert fit.steps == 0  # nothing carried over
    assert len({id(fit.optimizer) for fit in (first, second, other)}) == 3
    for before, after in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    assert not np.array_equal(first.weights[0], other.weights[0])


def test_trials_have_the_seeds_and_epochs_of_their_purpose():
    config = training.Settings(seed=3, seeds=2, epochs=7)
    choices = [{"configuration": "a"}, {"configuration": "b", "epochs": 9}]
    reports = config.trials(training.Trial, choices)
    assert [(t.configuration, t.seed, t.epochs, t.keep) for t in reports] == [
        ("a", 3, 7, True), ("b", 3, 9, True), ("a", 4, 7, False), ("b", 4, 9, False),
    ]  # fmt: skip
    assert {trial.purpose for trial in reports} == {"report"}
    sweep = config.trials(training.Trial, choices, "choose")
    assert [(trial.purpose, trial.seed, trial.keep) for trial in sweep] == [
        ("choose", seed, False) for seed in (1000, 1000, 1001, 1001)
    ]
    assert not any(t.keep for t in config.trials(training.Trial, choices, "choose", [3, 4]))
    smoke = replace(config, smoke=True).trials(training.Trial, choices[:1])
    assert [trial.epochs for trial in smoke] == [2, 2]


def test_digits_are_read_once_and_split_as_in_the_handout():
    data = training.load("sample", True, "last")
    assert training.load("sample", True, "last") is data
    images = labkit.load_mnist("sample").head(512, 256)
    np.testing.assert_array_equal(data.validation.x, images.x_train[460:])
    np.testing.assert_array_equal(data.train.y, images.y_train[:460])


# --- Models --------------------------------------------------------------------------------------

HANDOUT_L2 = regularization.HANDOUT["handout_l2_two_dropouts"]


def regularized(**changes: float) -> regularization.RegularizerTrial:
    return regularization.RegularizerTrial(**COMMON, **changes)


BUILDERS = {
    "linear": diagnosis.build_linear,
    "handout_regularized": lambda: regularization.build(regularized(**HANDOUT_L2)),
    **{
        f"batchnorm_{place}": lambda place=place: batchnorm.build(place)
        for place in ("after", "before")
    },
}


@pytest.mark.parametrize("name", BUILDERS)
def test_each_model_can_learn_32_images_by_heart(name, data):
    labkit.prepare(0)
    x, y = to_input(data.train.x[:32]), data.train.y[:32]
    model = BUILDERS[name]()
    optimizer = keras.optimizers.Adam(0.01)
    model.compile(optimizer, "sparse_categorical_crossentropy", steps_per_execution=50)
    model.fit(np.tile(x, (300, 1)), np.tile(y, 300), batch_size=32, shuffle=False, verbose=0)
    assert np.mean(np.argmax(model(x, training=False), axis=1) == y) == 1


@pytest.mark.parametrize(
    ("placement", "parameters", "trainable"),
    [("none", 407_050, 407_050), ("after", 409_098, 408_074), ("before", 408_586, 407_562)],
)
def test_batchnorm_has_the_handouts_parameters(placement, parameters, trainable):
    model = batchnorm.build(placement)
    assert model.count_params() == parameters
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == trainable
    kinds = [type(layer).__name__ for layer in model.layers]
    if placement == "after":
        assert kinds[1:] == ["Dense", "BatchNormalization", "Dropout", "Dense"]


@pytest.mark.parametrize("placement", batchnorm.PLACEMENTS)
def test_folding_keeps_every_prediction(placement, data):
    labkit.prepare(0)
    x, y = to_input(data.train.x[:32]), data.train.y[:32]
    model = batchnorm.build(placement)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=3, verbose=0)  # moves the averages away from 0 and 1
    folded = batchnorm.fold(model, placement)
    assert folded.count_params() == 407_050
    np.testing.assert_allclose(folded(x), model(x, training=False), atol=1e-5)


def test_the_handouts_regularised_network_has_l2_and_two_dropouts():
    model = regularization.build(regularized(**HANDOUT_L2))
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "Dropout", "Dense", "Dropout", "Dense"]
    penalty = float(model.losses[0])
    kernel = model.layers[2].kernel
    assert penalty == pytest.approx(0.001 * float(np.sum(np.square(kernel))), rel=1e-5)
    assert regularization.strengths_of(regularized(**HANDOUT_L2)) == HANDOUT_L2


def test_every_method_and_every_optimizer_has_the_same_budget():
    strengths = {name: len(tried) for name, tried in regularization.METHODS.items()}
    assert strengths.pop("none") == 1  # nothing to choose
    assert set(strengths.values()) == {5}
    assert {len(rates) for rates in optimizers.LEARNING_RATES.values()} == {4}


def test_adamw_decays_kernels_by_rate_times_decay_and_no_bias():
    """Loshchilov and Hutter, algorithm 2: with a zero gradient only the decay moves a weight."""
    labkit.prepare(0)
    optimizer = keras.optimizers.AdamW(0.001, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = (keras.Variable(np.ones((2, 2)), name=name) for name in ("kernel", "bias"))
    optimizer.build([kernel, bias])
    optimizer.apply([keras.ops.zeros((2, 2))] * 2)
    np.testing.assert_allclose(kernel, 1 - 0.001 * 0.1, rtol=1e-6)
    np.testing.assert_allclose(bias, 1)


def test_optimizers_are_the_handouts_and_new_each_time():
    settings = optimizers.make_optimizer("momentum", 0.01).get_config()
    assert (settings["momentum"], settings["nesterov"]) == (0.9, False)
    assert optimizers.make_optimizer("nesterov", 0.01).get_config()["nesterov"] is True
    for key, (name, rate) in optimizers.HANDOUT.items():
        first, second = (optimizers.make_optimizer(name, rate) for _ in range(2))
        assert first is not second
        assert type(first).__name__ in key
        assert float(first.learning_rate.numpy()) == pytest.approx(rate)


# --- Conclusions and figures ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train_accuracy", "validation_accuracy", "expected"),
    [
        ([0.99, 0.991, 0.989], [0.98, 0.981, 0.979], "neither"),
        ([0.90, 0.901, 0.899], [0.90, 0.90, 0.899], "bias"),
        ([1.0, 1.0, 1.0], [0.88, 0.881, 0.879], "variance"),
        ([0.93, 0.931, 0.929], [0.88, 0.881, 0.879], "bias and variance"),
        ([0.99, 0.991, 0.989], [0.97, 0.975, 0.965], "variance undecided"),
    ],
)
def test_the_rule_gives_each_verdict(train_accuracy, validation_accuracy, expected):
    assert diagnosis.verdict(train_accuracy, validation_accuracy) == expected


def outcome(trial: training.Trial, run_id: str = "", **metrics: float) -> Outcome:
    history = {name: [value - 0.1, value] for name, value in metrics.items()}
    return Outcome(trial, metrics, history, "script/folder", run_id)


def of(script: ModuleType, **changes) -> training.Trial:
    return replace(TRIALS[script], **changes)


def assert_drawn(axis, label: str, points: list[tuple[float, float]]) -> None:
    (line,) = [line for line in axis.get_lines() if line.get_label() == label]
    np.testing.assert_allclose(line.get_xydata(), points)


def test_errors_are_drawn_against_epochs_and_sizes():
    names = ("train_cross_entropy", "validation_cross_entropy", "train_accuracy",
             "validation_accuracy", "logged_train_accuracy")  # fmt: skip
    several = [
        outcome(of(diagnosis, images=images, seed=seed), **dict.fromkeys(names, accuracy))
        for images, accuracy in ((None, 0.75), (100, 0.5))
        for seed in (0, 1)
    ]
    (axis,) = diagnosis.sizes_figure(several, 460).axes
    for part in ("training", "validation"):
        assert_drawn(axis, part, [(100, 50), (460, 25)])
    loss, error = diagnosis.epochs_figure(several[:2]).axes
    assert_drawn(loss, "validation", [(1, 0.65), (2, 0.75)])
    assert_drawn(error, "training, as fit() prints it", [(1, 35), (2, 25)])
    assert diagnosis.conclusions(
        [replace(o, trial=replace(o.trial, configuration="handout")) for o in several[:2]]
    )[0].startswith("handout: bias. Training error 25.00 %")


def test_the_gap_is_training_minus_validation():
    several = [
        outcome(of(regularization, configuration=name, seed=seed),
                train_accuracy=0.9 + shift, validation_accuracy=0.7, test_accuracy=0.6)
        for name, shift in (("handout_none", 0.05), ("none", 0.05), ("l2", 0.0))
        for seed, shift in ((0, shift), (1, shift + 0.01))
    ]  # fmt: skip
    gaps = regularization.gaps(several)
    assert gaps["l2"] == pytest.approx([0.2, 0.21])
    (axis,) = regularization.gap_figure(several).axes
    assert axis.get_lines()[0].get_xydata()[0] == pytest.approx([25.5, 70])
    sweep = [
        outcome(of(regularization, configuration="l2", purpose="choose", l2=l2),
                validation_accuracy=accuracy)
        for l2, accuracy in ((0.1, 0.9), (0.01, 0.8))
    ]  # fmt: skip
    found = regularization.conclusions(several[2:], several[:2], sweep)
    assert found[0].startswith("Verdict: validation accuracy is measurably higher than without")
    assert found[0].endswith("the gap is measurably smaller for no method.")
    assert found[1].endswith("l2 (l2 0.1, dropout 0.5, at an end of its grid).")
    equal = "l2 and none differ in gap by -5.00 points in every seed alike: without a spread"
    assert f"{equal} no test is possible." in found


def test_rates_are_drawn_by_optimizer_and_an_edge_is_said():
    accuracies = {
        "sgd": {0.1: 0.5, 0.3: 0.7, 1: 0.6},
        "adam": {0.1: 0.9, 0.3: 0.8, 1: 0.7},
    }
    sweep = [
        outcome(of(optimizers, purpose="choose", optimizer=name, learning_rate=rate),
                validation_accuracy=accuracy)
        for name in accuracies for rate, accuracy in accuracies[name].items()
    ]  # fmt: skip
    (axis,) = optimizers.sensitivity_figure(sweep).axes
    assert_drawn(axis, "sgd", [(0.1, 50), (0.3, 30), (1, 40)])
    tuned = {"momentum_0.1": [0.9, 0.92, 0.91], "adam_0.1": [0.5, 0.53, 0.5]}
    given = {"momentum_0.01": [0.4, 0.41, 0.43]}
    found = optimizers.conclusions(tuned, given, comparison.at_an_edge(sweep, "optimizer"))
    assert found[0].startswith("Verdict: once each has its own rate, 1 of the 1 pairs")
    assert found[1].endswith("momentum_0.1, adam_0.1. At an end of those tried: adam.")
    pairs, of_handout, of_momentum = optimizers.compared(tuned, given)
    assert (len(pairs), len(of_handout), len(of_momentum)) == (1, 0, 1)
    assert found[-1].startswith("momentum_0.1 is above momentum_0.01 in test accuracy")


def test_runs_at_the_handouts_rates_have_its_names():
    client = mlflow.MlflowClient(tracking.store_uri())
    experiment = tracking.open_store("tp2_improvement")
    run_ids = [client.create_run(experiment).info.run_id for _ in range(2)]
    optimizers.name_as_in_the_handout(
        [
            outcome(of(optimizers, configuration=name), run_id, test_accuracy=0.9)
            for name, run_id in zip(("adam_0.001", "adam_0.003"), run_ids, strict=True)
        ]
    )
    ours, other = (client.get_run(run_id) for run_id in run_ids)
    assert ours.info.run_name == "Optimizer_Comparison_Adam"
    assert ours.data.metrics == {"final_test_accuracy": 0.9}
    assert other.data.metrics == {}


def test_who_tolerates_ten_times_the_rate_and_who_arrives_is_told():
    sweep, ten = (
        [
            outcome(of(batchnorm, placement=name, learning_rate=factor * rate,
                       configuration=name, purpose="choose"), validation_accuracy=rate)
            for name in ("none", "after") for rate in (0.1, 0.2)
        ]
        for factor in (1, 10)
    )  # fmt: skip
    (axis,) = batchnorm_report.tolerance_figure(sweep, ten).axes
    assert_drawn(axis, "after", [(0.1, 10), (0.2, 20)])
    assert_drawn(axis, "none, ten times its best rate", [(1, 10), (2, 20)])
    some = [
        outcome(of(batchnorm, configuration=name, seed=seed), **reached)
        for name, seed, reached in (
            ("none", 0, {}),
            ("after", 0, {"epochs_to_97.5": 2, "seconds_to_97.5": 3.14}),
            ("after", 1, {}),
        )
    ]
    assert batchnorm_report.arrival_in_words(some) == [
        "none: no seed of 1 reaches 97.5 % validation.",
        "after: 1 of 2 seeds reach 97.5 % validation, after 2 epochs and 3.1 seconds.",
    ]


def placed(metric: str, samples: dict[str, list[float]]) -> list[Outcome]:
    return [
        outcome(of(batchnorm, configuration=name, seed=seed), **{metric: value})
        for name, sample in samples.items()
        for seed, value in enumerate(sample)
    ]


def test_speed_is_compared_only_where_every_training_arrived():
    metric = "epochs_to_97.5"
    group = placed(metric, {"handout_none": [4, 5, 6], "handout_after": [2, 3, 3.9]})
    found = batchnorm_report.conclusions({"after": 0.001}, 0.001, {"handout": group}, [], {})
    assert "In epochs: handout_after sooner. In seconds: nobody (paired t-test" in found[0]
    assert found[1].endswith("The hand-out's rate on another split: best_after.")
    assert any("handout_after is below handout_none in epochs to 97.5 %" in each for each in found)
    group[0].metrics.clear()  # one never arrived: how much later, nobody knows
    assert batchnorm_report.compared({"handout": group}) == {}
    told = batchnorm_report.conclusions({"after": 0.01}, 0.001, {"handout": group}, [], {})[0]
    assert "In epochs: nobody. In seconds: nobody" in told


def test_the_first_epoch_at_the_target_counts():
    history = {"validation_accuracy": [0.97, 0.975, 0.98], "seconds": [1.0, 2.5, 4.0]}
    assert batchnorm.arrival(history) == {"epochs_to_97.5": 2, "seconds_to_97.5": 2.5}
    longer = {"validation_accuracy": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "seconds": [1.0] * 6}
    assert batchnorm.arrival(longer) == {"validation_accuracy_of_5_epochs": 0.5}
    assert batchnorm.arrival(history | {"validation_accuracy": [0.9, 0.9, 0.9]}) == {}


def test_mcnemar_against_the_binomial_by_hand():
    first = np.array([True] * 8 + [False] + [True] * 5)
    second = np.array([False] * 8 + [True] + [True] * 5)
    # 8 against 1: two-sided p = 2 (C(9,8) + C(9,9)) / 2^9
    assert evaluate.mcnemar(first, second) == pytest.approx(2 * (9 + 1) / 512)
    assert evaluate.mcnemar(first, first) == 1


def test_the_examination_counts_images_that_one_of_two_gets_right():
    right = {
        "a": np.array([True] * 12 + [False] * 2),
        "b": np.array([False] * 12 + [True, False]),
    }
    (axis,) = evaluate.disagreement_figure(right).axes
    assert [text.get_text() for text in axis.texts] == ["", "12", "1", ""]
    content = {
        "seeds": [0], "floors": {"floor_majority": 0.1},
        "series": {"a/test_accuracy": [12 / 14, 0], "b/test_accuracy": [1 / 14, 0]},
    }  # fmt: skip
    text = evaluate.report(right, content)
    assert "| a | 85.71 | 60.06 to 95.99 | 85.71 |" in text
    assert "a and b: McNemar's adjusted p = 0.00342" in text
    assert "no two of these" in evaluate.report({"a": right["a"], "b": right["a"]}, content)


# --- README.md -----------------------------------------------------------------------------------

PAGE = ROOT / "tp2_improvement" / "README.md"
COMPARING = re.compile(
    r"\b(above|below|better|worse|higher|lower|faster|slower|more|less|fewer|best|most|improves?|"
    r"improved|than|gains?|loses?|beats?|closed?|differs?)\b"
)


def test_sentences_that_compare_are_computed_or_cite_their_figure():
    page = PAGE.read_text()
    measured = page[page.index("## Exercise 1") : page.index("## Questions of the hand-out")]
    prose = tables.MARKER.sub("", measured)  # what no script wrote
    prose = re.sub(r"^#.*$", "", prose, flags=re.MULTILINE)
    for sentence in re.split(r"(?<=[.:])\s+", prose):
        definition = "*" in sentence or "rate" in sentence  # the rule and the settings
        assert definition or not COMPARING.search(sentence) or "<!-- = " in sentence, sentence


SENTENCE = re.compile(
    r"([\w.]+) (?:and|is above|is below) ([\w.]+) (?:can't be told apart by|in) ([\w ]+): "
    r"([+-][\d.]+) points \[([+-][\d.]+), ([+-][\d.]+)\], adjusted p [=<] (\d+\.\d+)"
)


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS, ids=lambda found: found.name)
def test_computed_sentences_follow_from_the_stored_values(experiment):
    """Every mean, difference and interval in them, computed anew from the values."""
    content = results.read(experiment.file)
    values = {key: np.array(found["values"]) for key, found in content["metrics"].items()}
    values |= {
        key.replace("/train_accuracy", "/gap"): sample
        - values[key.replace("/train_", "/validation_")]
        for key, sample in values.items()
        if key.endswith("/train_accuracy")
    }
    called = {words: metric for metric, (words, _) in batchnorm_report.QUESTIONS.items()}
    checked = 0
    for sentence in content["conclusions"]:
        if not (pair := SENTENCE.match(sentence)):
            continue
        metric = called.get(pair[3], pair[3].replace(" ", "_"))
        first, second = (values[f"{pair[i]}/{metric}"] for i in (1, 2))
        differences = 100 * (first - second)
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        reach = stats.t.ppf(0.975, len(differences) - 1) * error
        expected = [differences.mean(), differences.mean() - reach, differences.mean() + reach]
        assert [float(pair[i]) for i in (4, 5, 6)] == pytest.approx(expected, abs=0.0051)
        assert ("can't be told apart" in sentence) == (float(pair[7]) >= 0.05)
        if "above" in sentence or "below" in sentence:
            assert (differences.mean() > 0) == ("is above" in sentence)
        checked += 1
    assert checked or experiment.name == "tp2_ex1_bias_variance"


def test_no_quote_begins_a_line():
    """Markdown takes a line that begins with a comment out of its paragraph."""
    assert not re.search(r"^\s*<!-- = ", PAGE.read_text(), re.MULTILINE)


def test_a_quoted_figure_that_drifts_is_noticed():
    page = PAGE.read_text()
    drifted = re.sub(r"(-->)[+-][\d.]+ points", r"\1+9.99 points", page)
    assert drifted != page
    assert tables.QUOTE.sub(tables.quote, drifted) == page
