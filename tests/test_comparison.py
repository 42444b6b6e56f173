"""Comparisons: sealed test data, choices without them, one result, resumed; and the statistics."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from scipy import stats

import labkit
from labkit import comparison, evidence, tracking
from labkit.comparison import Outcome, SealedTest, SealedTestError, Settings, Trial, choose

DATA = labkit.Data(
    "sample",
    labkit.Part(np.arange(4), np.array([0, 1, 0, 1])),
    labkit.Part(np.arange(2), np.array([0, 1])),
    labkit.Part(np.arange(4), np.array([0, 1, 1, 1])),
)


@dataclass(frozen=True, kw_only=True)
class RateTrial(Trial):
    rate: float


def rate_trial(rate: float, purpose: str = "choose", seed: int = 0, **more) -> RateTrial:
    return RateTrial(configuration=f"rate_{rate:g}", rate=rate, purpose=purpose, seed=seed, **more)


def study(trial: RateTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
    """Trains nothing: the nearer to 0.1 the rate, the better; seed 1 alone reaches a target."""
    accuracy = 1 - abs(trial.rate - 0.1) - trial.seed / 1000
    run.log_epoch(0, {"validation_accuracy": accuracy})
    metrics = {"validation_accuracy": accuracy}
    if trial.purpose == "report":
        metrics["test_accuracy"] = float(np.mean(data.test.open().y)) - trial.seed / 1000
    return metrics | ({"epochs_to_target": 2.0} if trial.seed == 1 else {})


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A file that a comparison can be of: small, so that its code is read at once."""
    path = tmp_path / "tp9_lab" / "compare.py"
    path.parent.mkdir()
    path.write_text("")
    return str(path)


def start(script: str, **settings):
    return labkit.start_run(script, Settings(**settings), DATA.source, "none-none-compared")


def compare(
    script: str, study: Callable = study, resume: bool = False
) -> tuple[labkit.Run, dict[str, float]]:
    """A sweep of three rates, then the best of them and 0.5 with two seeds."""
    with start(script, resume=resume) as run:
        if run.is_finished:
            return run, comparison.show_again(run)

        def train(trials: list[RateTrial]) -> list[Outcome]:
            trials = [replace(trial, resume=resume) for trial in trials]
            return comparison.run_trials(run, script, study, lambda trial: DATA, trials, "off")

        sweep = train([rate_trial(rate, seed=1000) for rate in (0.3, 0.1, 0.5)])
        best = choose(sweep, among="purpose")["choose"].rate
        final = train([rate_trial(r, "report", seed) for r in (best, 0.5) for seed in (0, 1)])
        metrics = comparison.conclude(
            run, "Rates", final, {"test_accuracy": "test %", "epochs_to_target": "epochs"},
            ["Said."], {"floor_majority": 0.75}, {"best": best}, "Thought.\n",
        )  # fmt: skip
    return run, metrics


# --- Sealed test data ----------------------------------------------------------------------------


def test_who_chooses_cannot_open_the_test_data():
    sealed = SealedTest(DATA.test, "choose")
    with pytest.raises(SealedTestError, match="sealed"):
        sealed.open()
    assert DATA.test not in vars(sealed).values()  # not in reach at all


def test_who_reports_opens_them_once():
    sealed = SealedTest(DATA.test, "report")
    assert sealed.open() is DATA.test
    with pytest.raises(SealedTestError):
        sealed.open()


def test_every_trial_gets_its_test_data_sealed(script):
    """A sweep that wants to look is stopped, whatever `load` gave it."""

    def curious(trial: Trial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
        return {"test_accuracy": float(np.mean(data.test.open().y))}

    with start(script) as run:
        arguments = (run, script, curious, lambda trial: DATA)
        with pytest.raises(SealedTestError):
            comparison.run_trials(*arguments, [rate_trial(0.1)], "off")
        (told,) = comparison.run_trials(*arguments, [rate_trial(0.1, "report")], "off")
    assert told.metrics == {"test_accuracy": 0.75}


# --- Choices -------------------------------------------------------------------------------------


def outcome(trial: Trial, history: dict[str, list[float]] | None = None, **metrics) -> Outcome:
    return Outcome(trial, metrics, history or {}, "script/folder", None)


SWEEP = [
    outcome(rate_trial(rate), validation_accuracy=accuracy, validation_loss=1 - accuracy)
    for rate, accuracy in ((0.3, 0.8), (0.1, 0.9), (0.5, 0.7))
]


def test_the_best_is_chosen_and_not_the_worst():
    one = [replace(o, trial=replace(o.trial, configuration="one")) for o in SWEEP]
    assert choose(one)["one"].rate == 0.1
    assert choose(one, metric="validation_loss", best=min)["one"].rate == 0.1
    assert choose(one, metric="validation_loss")["one"].rate == 0.5


def test_choices_are_made_within_each_name():
    assert {name: trial.rate for name, trial in choose(SWEEP).items()} == {
        "rate_0.3": 0.3, "rate_0.1": 0.1, "rate_0.5": 0.5,
    }  # fmt: skip
    assert choose(SWEEP, among="seed")[0].rate == 0.1


def test_the_mean_over_the_sweeps_seeds_decides():
    lucky = {(0.3, 1000): 0.95, (0.3, 1001): 0.5, (0.1, 1000): 0.8, (0.1, 1001): 0.8}
    sweep = [
        outcome(
            replace(rate_trial(rate, seed=seed), configuration="one"), validation_accuracy=accuracy
        )
        for (rate, seed), accuracy in lucky.items()
    ]
    assert choose(sweep)["one"].rate == 0.1
    measured = comparison.swept(sweep)["one"]
    assert {t.rate: mean for t, mean in measured.items()} == pytest.approx({0.3: 0.725, 0.1: 0.8})


def test_a_choice_at_the_end_of_its_grid_is_told():
    def tried(*accuracies: float) -> list[Outcome]:
        return [
            outcome(replace(rate_trial(rate), configuration="one"), validation_accuracy=accuracy)
            for rate, accuracy in zip((0.1, 0.2, 0.3), accuracies, strict=False)
        ]

    assert comparison.at_an_edge(tried(0.9, 0.8, 0.7)) == ["one"]
    assert comparison.at_an_edge(tried(0.7, 0.8, 0.9)) == ["one"]
    assert comparison.at_an_edge(tried(0.7, 0.9, 0.8)) == []
    assert comparison.at_an_edge(tried(0.7)) == []  # nothing to choose


def test_choosing_refuses_outcomes_that_were_tested():
    tested = outcome(rate_trial(0.2, "report"), validation_accuracy=0.95)
    with pytest.raises(ValueError, match="must not see"):
        choose([*SWEEP, tested])


# --- The comparison as a whole -------------------------------------------------------------------


def test_a_comparison_says_what_it_found_and_keeps_it(script, capsys):
    run, metrics = compare(script)
    assert metrics == run.metrics
    assert metrics["rate_0.1/test_accuracy"] == pytest.approx(0.7495)  # mean of two seeds
    assert metrics["floor_majority"] == 0.75
    found = comparison.compared(run)
    assert found["seeds"] == [0, 1]
    assert found["series"]["rate_0.1/test_accuracy"] == [0.75, 0.749]
    assert found["series"]["rate_0.5/epochs_to_target"] == [2.0]  # the seed that arrived
    assert (found["floors"], found["details"]) == ({"floor_majority": 0.75}, {"best": 0.1})
    assert found["conclusions"] == ["Said."]
    assert set(found["folders"]) == {"rate_0.1", "rate_0.5"}
    for name, folder in found["folders"].items():
        assert f"{name}-trial-compared-s0-" in folder  # the first seed's
        assert (run.folder.parents[1] / folder / "state.json").exists()
    report = (run.folder / "report.md").read_text()
    assert report in capsys.readouterr().out
    for part in ("# Rates", "Data: sample", "| rate_0.1 | 74.95 ± 0.07 (n = 2)", "2.00 (n = 1)",
                 "floor, majority: 0.7500", "- Said.", "Thought."):  # fmt: skip
        assert part in report


def test_in_the_store_it_is_one_parent_with_its_trials(script):
    run, _ = compare(script)
    tracking.open_store("tp9_lab")
    query = f"tags.mlflow.parentRunId = '{run.state['run_id']}'"
    children = mlflow.search_runs(filter_string=query)
    assert len(children) == 3 + 2 * 2
    assert set(children["status"]) == {"FINISHED"}
    chose = children["params.purpose"] == "choose"
    assert children[chose]["metrics.test_accuracy"].isna().all()
    assert children[~chose]["metrics.test_accuracy"].notna().all()
    assert mlflow.active_run() is None


def test_an_interrupted_comparison_goes_on_without_repeating_what_is_finished(script, capsys):
    trained = []

    def interrupted(trial: RateTrial, data: labkit.Data, run: labkit.Run) -> dict[str, float]:
        trained.append((trial.rate, trial.seed))
        if len(trained) == 5:
            raise KeyboardInterrupt
        return study(trial, data, run)

    with pytest.raises(SystemExit) as stop:
        compare(script, interrupted)
    assert stop.value.code == 130
    assert "--resume" in capsys.readouterr().err

    run, metrics = compare(script, interrupted, resume=True)
    assert len(trained) == len(set(trained)) + 1 == 3 + 2 * 2 + 1  # the interrupted one twice
    trials = list(run.folder.parents[1].glob("*.trial/*/state.json"))
    assert len(trials) == 3 + 2 * 2
    assert len(list(run.folder.parent.iterdir())) == 1

    assert compare(script, interrupted, resume=True)[1] == metrics
    assert len(trained) == 8  # nothing was left to do
    assert "# Rates" in capsys.readouterr().out


def test_seeds_of_sweeps_and_reports_never_meet():
    assert Settings(seed=3, seeds=4).all_seeds == [3, 4, 5, 6]
    assert Settings(seed=3, seeds=4, smoke=True).all_seeds == [3, 4]
    with pytest.raises(ValueError, match=r"--seed \+ --seeds must be 1000 or less, got 1001"):
        Settings(seed=997, seeds=4)
    with pytest.raises(ValueError, match="--seeds must be 2 or more"):
        Settings(seeds=1)


def test_environment_threads_are_fixed(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    labkit.fan_out(str, [1], "off")
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == "2"


# --- Tables and figures --------------------------------------------------------------------------

FINAL = [
    outcome(
        rate_trial(rate, "report", seed), {"loss": losses}, test_accuracy=rate + seed / 100
    )
    for rate, seed, losses in (
        (0.5, 1, [1.0, 0.4]), (0.5, 0, [0.8, 0.2]), (0.1, 0, [0.9, 0.6]), (0.1, 1, [0.7]),
    )
]  # fmt: skip


def test_values_are_in_the_order_of_the_seeds_and_may_be_missing():
    found = evidence.values(FINAL, "test_accuracy")
    assert found == {"rate_0.5": [0.5, 0.51], "rate_0.1": [0.1, 0.11]}
    assert evidence.values(FINAL, "never_logged") == {"rate_0.5": [], "rate_0.1": []}
    columns = {"test_accuracy": "test %", "never_logged": "loss", "epochs_to_target": "epochs"}
    table = evidence.markdown(FINAL, columns)
    assert "| rate_0.5 | 50.50 ± 0.71 (n = 2) |  | never |" in table


def test_curves_are_means_over_seeds_also_where_one_ended_early():
    (axis,) = evidence.curves_figure(FINAL, {"loss": "training loss (nats)"}).axes
    lines = {line.get_label(): line.get_ydata() for line in axis.get_lines()}
    np.testing.assert_allclose(lines["rate_0.5"], [0.9, 0.3])
    np.testing.assert_allclose(lines["rate_0.1"], [0.8, 0.6])
    assert axis.get_title() == "training loss (nats)"


def test_accuracies_are_drawn_in_percent():
    history = {"val_accuracy": [0.5, 0.75]}
    trial = outcome(rate_trial(0.1, "report"), history, val_accuracy=0.75)
    (axis,) = evidence.curves_figure([trial], {"val_accuracy": "validation accuracy"}).axes
    np.testing.assert_allclose(axis.get_lines()[0].get_ydata(), [50, 75])
    assert axis.get_title() == "validation accuracy (%)"


def test_the_ranking_has_the_best_on_top_and_marks_who_cannot_be_told_apart():
    samples = {"b": [0.5, 0.52, 0.51], "a": [0.9, 0.92, 0.91], "c": [0.501, 0.519, 0.511]}
    (axis,) = evidence.ranking_figure(samples, evidence.compare_pairs(samples), "accuracy").axes
    assert [label.get_text() for label in axis.get_yticklabels()][-1] == "a"
    bars = [line for line in axis.get_lines() if line.get_color() == "C1"]
    assert len(bars) == 1  # b and c
    assert max(bars[0].get_ydata()) < 1.5


# --- Statistics ------------------------------------------------------------------------------


def test_holm_against_a_worked_example():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; then never falling.
    assert evidence.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert evidence.holm([0.6, 0.7]) == [1, 1]


def test_paired_comparison_against_the_formula():
    a, b = [0.981, 0.983, 0.979, 0.984], [0.979, 0.980, 0.978, 0.980]
    (pair,) = evidence.compare_pairs({"a": a, "b": b})
    differences = np.subtract(a, b)
    error = differences.std(ddof=1) / 2
    t = differences.mean() / error
    assert pair.difference == pytest.approx(differences.mean())
    assert pair.p == pytest.approx(2 * stats.t.sf(t, 3))
    reach = 3.182446305284263 * error  # the table's 97.5 % point of t with 3 degrees of freedom
    assert (pair.low, pair.high) == pytest.approx(
        (differences.mean() - reach, differences.mean() + reach)
    )


def test_equal_samples_cannot_be_told_apart_and_a_base_limits_the_pairs():
    samples = {"a": [0.9, 0.9], "b": [0.9, 0.9], "c": [0.8, 0.8]}
    pairs = evidence.compare_pairs(samples)
    assert [pair.p for pair in pairs] == [None, None, None]  # equal differences: no test
    assert [(pair.first, pair.second) for pair in evidence.compare_pairs(samples, "a")] == [
        ("b", "a"),
        ("c", "a"),
    ]


def test_differences_that_are_equal_but_for_rounding_have_no_spread():
    a, b = [0.9, 0.8, 0.7], [0.6, 0.5, 0.4]
    assert np.ptp(np.subtract(a, b)) > 0
    (pair,) = evidence.compare_pairs({"a": a, "b": b})
    assert (pair.p, pair.low, pair.high) == (None, None, None)
    assert not pair.distinguishable
    assert "no test is possible" in evidence.difference_in_words(pair, "test accuracy")
    assert np.isnan(evidence.mean_interval(np.subtract(a, b))).all()


def test_what_cannot_be_tested_is_not_counted_by_holm():
    samples = {"a": [0.1, 0.2], "b": [0.2, 0.3], "c": [0.5, 0.9]}
    untested, *tested = evidence.compare_pairs(samples)
    raw = [stats.ttest_rel(samples[name], samples["c"]).pvalue for name in "ab"]
    assert untested.p is None
    assert [pair.p for pair in tested] == pytest.approx(evidence.holm(raw))


def test_no_interval_leaves_zero_to_a_hundred_percent():
    assert evidence.percent([0.99, 1.0]) == "99.50 % [93.15, 100.00]"
    assert evidence.percent([0.5, 0.5, 0.5]) == "50.00 % in all 3 seeds"


def test_false_alarms_over_many_pairs_stay_near_five_percent():
    """Under the null hypothesis, some pair of 15 is told apart in at most about 5 % of cases."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(100):
        samples = {name: rng.normal(0.98, 0.001, 5).tolist() for name in "abcdef"}
        alarms += any(pair.distinguishable for pair in evidence.compare_pairs(samples))
    assert alarms <= 12


def test_mean_interval_against_scipy_and_with_equal_values():
    sample = [0.97, 0.98, 0.99]
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
    assert evidence.mean_interval(sample) == pytest.approx((expected.low, expected.high))
    assert np.isnan(evidence.mean_interval([0.5, 0.5])).all()


def test_groups_join_neighbours_that_cannot_be_told_apart():
    noise = np.array([-0.001, 0.0015, -0.0005, 0.001, -0.001])
    samples = {
        "worst": (0.90 + noise).tolist(),
        "second": (0.98 - noise).tolist(),
        "first": (0.9801 + 2 * noise).tolist(),
    }

    def groups(samples: dict[str, list[float]]) -> list[list[str]]:
        return evidence.indistinguishable_groups(samples, evidence.compare_pairs(samples))

    assert groups(samples) == [["first", "second"]]
    assert groups({"a": [1, 0.9], "b": [0.5, 0.401]}) == []
    assert groups({"a": [1, 1], "b": [0.5, 0.5]}) == [["a", "b"]]


def test_all_questions_of_an_exercise_share_one_adjustment():
    rng = np.random.default_rng(0)
    first, second = (
        {name: rng.normal(0, 1, 5).tolist() for name in ("a", "b", "c")} for _ in range(2)
    )
    found = evidence.compare_questions([(first, "a"), (second, None)])
    assert [[(pair.first, pair.second) for pair in pairs] for pairs in found] == [
        [("b", "a"), ("c", "a")], [("a", "b"), ("a", "c"), ("b", "c")],
    ]  # fmt: skip
    samples = [first, first, second, second, second]
    flat = [pair for pairs in found for pair in pairs]
    raw = [
        stats.ttest_rel(of[pair.first], of[pair.second]).pvalue
        for of, pair in zip(samples, flat, strict=True)
    ]
    assert [pair.p for pair in flat] == pytest.approx(evidence.holm(raw))


def test_a_difference_has_the_unit_of_what_was_measured():
    (pair,) = evidence.compare_pairs({"a": [3.0, 4.0, 5.0], "b": [1.0, 2.5, 3.0]})
    assert "a is above b in epochs to 97 %: +1.83 epochs [" in evidence.difference_in_words(
        pair, "epochs to 97 %", "epochs"
    )
