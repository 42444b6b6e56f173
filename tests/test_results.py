"""Published figures: complete, from real data, drawn into the READMEs, and not too good."""

import json
import re
from pathlib import Path

import pytest

from labkit import results
from tests.conftest import ROOT
from tools import reproduce, tables

RESULTS = sorted((ROOT / "results").glob("*.json"))
TRAININGS = [path for path in RESULTS if not path.name.startswith("bench.")]
COMPARISONS = {
    experiment.file
    for lab in reproduce.EXPERIMENTS.values()
    for experiment in lab
    if experiment.comparison
}
# Reference figure minus tolerance, in 0..1: a rerun that lands below has broken something.
GATES = {"dense": 0.975, "dense_strong": 0.990, "cnn": 0.995, "compact": 0.994}


def test_tables_are_up_to_date():
    tables.main(["--check"])


def test_a_drifted_figure_is_noticed(monkeypatch, capsys):
    page = ROOT / "tp1_mnist_api" / "README.md"
    drifted = re.sub(r"\d\d\.\d\d ±", "99.99 ±", page.read_text())
    assert drifted != page.read_text()
    assert tables.render(drifted) == page.read_text()


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.stem)
def test_result_is_complete_and_real(path: Path):
    content = json.loads(path.read_text())
    keys = {"script", "argv", "data_source", "seeds", "metrics", "floors", "train_seconds"}
    keys |= {"machine", "versions", "commit"}
    is_comparison = path.stem in COMPARISONS
    assert set(content) == keys | (
        {"seconds", "conclusions", "details"} if is_comparison else set()
    )
    generated = "_demo" in path.stem or "style_transfer" in path.stem
    assert generated or content["data_source"].startswith(("real:", "simulated:"))
    assert not content["commit"].endswith(("dirty", "unknown"))
    for name, summary in content["metrics"].items():
        assert summary["n"] == len(summary["values"])
        if "_to_" in name:  # absent for a seed that never arrived
            assert summary["n"] <= len(content["seeds"])
        else:
            least = 1 if content["train_seconds"].get("mean", 0) > 600 else 3
            assert summary["n"] == len(content["seeds"]) >= least
        assert summary["mean"] == pytest.approx(sum(summary["values"]) / summary["n"])


@pytest.mark.parametrize("variant", GATES)
def test_quality_gate(variant: str):
    content = results.read(f"tp1_mnist_api.train_model.{variant}")
    accuracy = content["metrics"]["test_accuracy"]["mean"]
    assert GATES[variant] <= accuracy < 0.999  # MNIST's best published figures, chosen on test
    assert accuracy > max(content["floors"].values()) or variant == "dense"


TP2_GATES = {  # test accuracy that a rerun must reach
    ("tp2_improvement.tp2_ex1_bias_variance", "handout"): 0.975,
    ("tp2_improvement.tp2_ex2_regularization", "two_dropouts"): 0.976,
    ("tp2_improvement.tp2_ex3_optimizers", "momentum_0.1"): 0.976,
    ("tp2_improvement.tp2_ex3_optimizers", "adam_0.001"): 0.975,
    ("tp2_improvement.tp2_ex4_batchnorm", "handout_after"): 0.975,
}


@pytest.mark.parametrize(("name", "configuration"), TP2_GATES)
def test_quality_gate_of_tp2(name: str, configuration: str):
    content = results.read(name)
    accuracy = content["metrics"][f"{configuration}/test_accuracy"]["mean"]
    assert max(content["floors"].values()) < TP2_GATES[name, configuration] <= accuracy < 0.99


CIFAR10 = "tp3_cnn_resnet.cnn_classification"
UNET = "tp4_unet_conv3d.unet_segmentation"
ATTENTION = "tp5_seq2seq_attention.attention_exercise"
FORECAST = "tp5_seq2seq_attention.seq2seq_attention"
PLAUSIBLE = {  # what a rerun must reach, and what would be too good to be true
    (f"{CIFAR10}.cnn", "test_accuracy"): (0.70, 0.74),
    (f"{CIFAR10}.resnet_falling", "test_accuracy"): (0.80, 0.84),
    (f"{CIFAR10}.fast_resnet", "test_accuracy"): (0.90, 0.93),
    (f"{CIFAR10}.fast_resnet_long", "test_accuracy"): (0.93, 0.95),
    (f"{CIFAR10}.fast_resnet_record", "test_accuracy"): (0.94, 0.96),
    (f"{UNET}.cells", "dice"): (0.90, 0.99),
    (f"{UNET}.mri", "dice"): (0.75, 0.90),
    ("tp4_unet_conv3d.conv3d_analysis", "conv3d/test_accuracy"): (0.95, 1.00),
    ("tp4_unet_conv3d.conv3d_analysis", "slices/test_accuracy"): (0.40, 0.60),  # proved: 0.5
    ("tp4_unet_conv3d.volume_segmentation.tubes", "volumes/dice"): (0.70, 0.99),
    (ATTENTION, "attention_pairs_marked50/test_accuracy"): (0.98, 1.00),
    (ATTENTION, "attention_pairs_marked50/test_attention_recall"): (0.95, 1.00),
    (ATTENTION, "mean_negation50/test_accuracy"): (0.45, 0.55),  # proved: 0.5
    (f"{FORECAST}.synthetic", "mse"): (0.0100, 0.0115),  # the noise alone is 0.0100
    (f"{FORECAST}.etth1_96", "mse"): (0.340, 0.375),
}


@pytest.mark.parametrize(("name", "metric"), PLAUSIBLE)
def test_a_reference_figure_is_neither_too_bad_nor_too_good(name: str, metric: str):
    content = results.read(name)
    lowest, highest = PLAUSIBLE[name, metric]
    assert lowest <= content["metrics"][metric]["mean"] <= highest
    if metric == "test_accuracy":
        assert max(content["floors"].values()) < lowest


def test_the_mini_resnet_is_above_the_cnn_in_every_seed():
    cnn, resnet = (
        results.read(f"{CIFAR10}.{variant}")["metrics"]["test_accuracy"]["values"]
        for variant in ("cnn", "resnet_falling")
    )
    assert max(cnn) < min(resnet)


def test_no_threshold_finds_the_cells():
    floors = results.read(f"{UNET}.cells")["floors"]
    assert {"threshold", "otsu"} <= set(floors)
    assert max(floors.values()) <= 0.6


def test_the_gru_alone_is_worse_on_long_sentences_in_every_seed():
    metrics = results.read(ATTENTION)["metrics"]
    alone, pairs = (
        metrics[f"{network}_marked200/test_accuracy"]["values"]
        for network in ("gru", "attention_pairs")
    )
    assert max(alone) < min(pairs)


def test_forecasts_are_below_ridge_in_every_seed():
    for series in ("synthetic", "etth1_96"):
        content = results.read(f"{FORECAST}.{series}")
        ridges = [
            value
            for name, value in content["floors"].items()
            if name.startswith("ridge") and not name.endswith("_mae")
        ]
        assert max(content["metrics"]["mse"]["values"]) < min(ridges)


def test_summary_against_numpy():
    import numpy as np

    values = [0.1, 0.4, 0.35]
    summary = results.summary(values)
    assert summary["mean"] == pytest.approx(np.mean(values))
    assert summary["std"] == pytest.approx(np.std(values, ddof=1))
    assert results.summary([0.5])["std"] is None


def commands() -> list[str]:
    """Every `python ...py` command line of the pages."""
    found = []
    for page in tables.pages():
        for block in re.findall(r"```(?:sh|powershell)\n(.*?)```", page.read_text(), re.DOTALL):
            found += re.findall(r"^python (\S+\.py[^#\n]*)", block, re.MULTILINE)
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_pages_exist(command: str, python):
    script, *arguments = command.split()
    known = python(script, "--help").stdout
    for flag in re.findall(r"--[a-z-]+", " ".join(arguments)):
        assert re.search(rf"{flag}\b", known), f"{script} has no {flag}"


def test_make_targets_of_the_pages_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in tables.pages():
        named = set(re.findall(r"`make ([a-z]+)|^make ([a-z]+)", page.read_text(), re.MULTILINE))
        assert {a or b for a, b in named} <= targets


COMPARING = re.compile(
    r"\b(above|below|better|worse|higher|lower|faster|slower|more|less|fewer|best|most|improves?|"
    r"improved|than|gains?|loses?|beats?|closed?|differs?)\b"
)


def measured_part(page: str) -> str:
    """TP2's page from the first exercise to the questions: what it says about measurements."""
    return page[page.index("## Exercise 1") : page.index("## Questions of the hand-out")]


def test_sentences_of_tp2_that_compare_are_computed_or_cite_their_figure():
    page = (ROOT / "tp2_improvement" / "README.md").read_text()
    prose = tables.MARKER.sub("", measured_part(page))  # what no script wrote
    prose = re.sub(r"^#.*$", "", prose, flags=re.MULTILINE)
    for sentence in re.split(r"(?<=[.:])\s+", prose):
        definition = "*" in sentence or "rate" in sentence  # the rule and the settings
        assert definition or not COMPARING.search(sentence) or "<!-- = " in sentence, sentence


@pytest.mark.parametrize("name", tables.TP2)
def test_computed_sentences_follow_from_the_stored_values(name: str):
    """Every mean, difference and interval in them, computed anew from the values."""
    import numpy as np
    from scipy import stats

    content = results.read(tables.TP2[name][0])
    values = {key: found["values"] for key, found in content["metrics"].items()}
    checked = 0
    for sentence in content["conclusions"]:
        pair = re.match(
            r"([\w.]+) (?:and|is above|is below) ([\w.]+) (?:can't be told apart by|in) ([\w ]+): "
            r"([+-][\d.]+) points \[([+-][\d.]+), ([+-][\d.]+)\], adjusted p [=<] (\d+\.\d+)",
            sentence,
        )
        if not pair:
            continue
        first, second, what = pair[1], pair[2], pair[3].replace(" ", "_")

        def sample(configuration: str, what: str = what) -> np.ndarray:
            if what == "gap":
                train, validation = (
                    np.array(values[f"{configuration}/{part}_accuracy"])
                    for part in ("train", "validation")
                )
                return train - validation
            return np.array(values[f"{configuration}/{what}"])

        differences = 100 * (sample(first) - sample(second))
        error = differences.std(ddof=1) / np.sqrt(len(differences))
        reach = stats.t.ppf(0.975, len(differences) - 1) * error
        expected = [differences.mean(), differences.mean() - reach, differences.mean() + reach]
        assert [float(pair[i]) for i in (4, 5, 6)] == pytest.approx(expected, abs=0.0051)
        assert ("can't be told apart" in sentence) == (float(pair[7]) >= 0.05)
        if "above" in sentence or "below" in sentence:
            assert (differences.mean() > 0) == ("is above" in sentence)
        checked += 1
    assert checked or name == "bias_variance"


def test_no_quote_begins_a_line():
    """Markdown takes a line that begins with a comment out of its paragraph."""
    page = (ROOT / "tp2_improvement" / "README.md").read_text()
    assert not re.search(r"^\s*<!-- = ", page, re.MULTILINE)


def test_a_quoted_figure_that_drifts_is_noticed():
    page = ROOT / "tp2_improvement" / "README.md"
    drifted = re.sub(r"(-->)[+-][\d.]+ points", r"\1+9.99 points", page.read_text())
    assert drifted != page.read_text()
    assert tables.render(drifted) == page.read_text()
