"""Examine a trained forecaster or attention network: same test figures, more questions.

    python tp5_seq2seq_attention/evaluate.py                        # the last forecaster
    python tp5_seq2seq_attention/evaluate.py --run ID               # another: MLflow run id, folder
    python tp5_seq2seq_attention/evaluate.py --exercise attention   # the last comparison's networks

Nothing is trained or chosen here. Of a forecaster: errors by channel and step, how often its
intervals hold, what it forecasts when its history is changed, how fast it is. Of the attention
networks: accuracy and recall from the saved files, and what happens when the words that decide, or
as many others, are replaced by fillers: the test of an explanation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

import labkit
from labkit import figures
from labkit.arguments import fail
from tp5_seq2seq_attention.attention_exercise import score, sentences
from tp5_seq2seq_attention.grammar import FILLERS, NUMBER, Sentences
from tp5_seq2seq_attention.seq2seq_attention import (
    Config as TrainingConfig,
)
from tp5_seq2seq_attention.seq2seq_attention import (
    evaluate,
    free_running,
    published,
)
from tp5_seq2seq_attention.series import Series, Windows, load_series

keras = labkit.lazy("keras")
drawings = labkit.lazy("tp5_seq2seq_attention.forecast_figures")
measures = labkit.lazy("tp5_seq2seq_attention.forecast_metrics")

LAB = "tp5_seq2seq_attention"


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    exercise: Literal["seq2seq", "attention"] = "seq2seq"
    """What to examine: a forecaster, or the networks of an attention comparison."""
    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: what it was trained on; real and sample must be the same."""
    seed: int = 0
    """Of the fillers that replace words."""
    smoke: bool = False
    """Few windows or sentences, as in training with --smoke."""


# --- Forecaster ----------------------------------------------------------------------------------


def load_trained(config: Config, trained: labkit.Run) -> tuple[TrainingConfig, Series]:
    """The training's settings and series; exit code 2 where `--data` contradicts them."""
    settings = TrainingConfig(
        **(trained.config | {"smoke": config.smoke or trained.config["smoke"]})
    )
    source = trained.state["data_source"]
    was_real = source.startswith("real")
    if config.data == "real" and settings.series.startswith("etth1") and not was_real:
        fail("--data real: this run was trained on the sample")
    if config.data == "sample" and was_real:
        fail("--data sample: this run was trained on real data")
    data = "real" if was_real else "sample"
    series = load_series(settings.series, settings.horizon, data, settings.smoke)
    return settings, series


def by_channel(forecast: np.ndarray, series: Series) -> dict[str, float]:
    """Test mean squared error of each channel."""
    future = series.parts["test"].future
    return {
        f"mse_{name.lower().replace(' ', '_')}": measures.point_errors(
            forecast[:, [index]], future[:, [index]], series.unit
        )["mse"]
        for index, name in enumerate(series.channels)
    }


def forgetting(forecaster: keras.Model, series: Series) -> dict[int, float]:
    """Test mean squared error when all but the last steps of the history are made flat.

    Keys are the number of steps that are left; the rest repeats the first of them. It shows how far
    back the forecaster uses what it is given.
    """
    test = series.parts["test"]
    windows = test.windows[:: max(1, len(test.windows) // 400)]  # a few hundred windows suffice
    look_back, found = test.look_back, {}
    for kept in sorted({look_back, *(look_back * share // 8 for share in (1, 2, 4, 6))}):
        changed = windows.copy()
        start = look_back - kept
        changed[..., :start] = changed[..., start : start + 1]
        forecast, _ = free_running(forecaster, Windows(changed, look_back))
        future = changed[..., look_back:]
        found[kept] = measures.point_errors(forecast[..., 0], future, series.unit)["mse"]
    return found


def milliseconds(forecaster: keras.Model, history: np.ndarray, repeats: int = 10) -> float:
    """Median time of one window's forecast, the first call left out."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        forecaster.predict_on_batch(history[:1])
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[1:]))


def channels_figure(
    errors: dict[str, float], floor: dict[str, float], forgotten: dict[int, float]
) -> figures.Figure:
    """Error of each channel beside ridge's, and error against the length of the history."""
    figure, (left, right) = figures.subplots(1, 2, size=(11, 4))
    places = np.arange(len(errors))
    left.bar(places - 0.2, list(errors.values()), 0.38, label="network")
    left.bar(places + 0.2, list(floor.values()), 0.38, label="ridge")
    left.set_xticks(places, [name.removeprefix("mse_") for name in errors])
    left.set(title="Test error by channel", ylabel="mean squared error")
    left.legend(fontsize=8)
    right.plot(list(forgotten), list(forgotten.values()), marker="o")
    right.set(xlabel="steps of the history that are left", ylabel="mean squared error")
    right.set(title="How far back it looks")
    right.set_ylim(bottom=0)
    return figure


def examine_forecaster(config: Config) -> dict[str, float]:
    """Load a forecaster, test it again, and look closer."""
    trained = labkit.find_run(f"{LAB}.seq2seq_attention", config.run)
    settings, series = load_trained(config, trained)
    labkit.prepare(config.seed)
    import tp5_seq2seq_attention.seq2seq_models  # noqa: F401  the saved model's layers

    forecaster = keras.saving.load_model(trained.folder / "model.keras")
    name, parent = trained.state["name"], trained.state["run_id"] or ""
    with labkit.start_run(__file__, config, series.source, name, parent) as run:
        metrics, arrays = evaluate(None, forecaster, series, settings.decoder)
        errors = by_channel(arrays["forecast"][..., 0], series)
        floor = by_channel(arrays["floor_ridge"], series)
        forgotten = forgetting(forecaster, series)
        metrics |= errors | {f"floor_ridge_{key}": value for key, value in floor.items()}
        metrics |= {f"mse_of_last_{kept}": value for kept, value in forgotten.items()}
        metrics["ms_per_window"] = milliseconds(forecaster, series.parts["test"].history)
        run.log_metrics(metrics)
        run.save_figure("channels", channels_figure(errors, floor, forgotten))
        run.save_figure("error_by_step", drawings.errors_figure(series, arrays))
        run.save_figure("forecasts", drawings.forecasts_figure(series, arrays))
        lines = [
            f"Test error, free-running: MSE {metrics['mse']:.4f}, MAE {metrics['mae']:.4f} "
            f"({series.source}, {len(series.parts['test'].windows)} windows)",
            *(
                f"  floor, {key.removeprefix('floor_').replace('_', ' ')}: {value:.4f}"
                for key, value in metrics.items()
                if key
                in ("floor_persistence", "floor_seasonal_naive", "floor_ridge", "floor_noise")
            ),
            *(
                f"  published, {key}: {value:.3f}"
                for key, value in published(settings, series.source).items()
            ),
            f"90 % intervals hold {100 * metrics['coverage']:.1f} %, width "
            f"{metrics['interval_width']:.3f}, interval score {metrics['interval_score']:.3f}",
            *(
                f"  {key.removeprefix('mse_')}: {value:.4f}, ridge {floor[key]:.4f}"
                for key, value in errors.items()
            ),
            "MSE with only the last steps of the history: "
            + ", ".join(f"{kept}: {value:.4f}" for kept, value in forgotten.items()),
            f"One window: {metrics['ms_per_window']:.1f} ms",
        ]
        _conclude(run, name, lines)
    return run.metrics


# --- Attention networks --------------------------------------------------------------------------


def erased(part: Sentences, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The tokens with those where `chosen` (n, length) is True replaced by fillers."""
    fillers = rng.choice([NUMBER[word] for word in FILLERS], part.tokens.shape)
    return np.where(chosen, fillers, part.tokens).astype(np.int32)


def most_attended(weights: np.ndarray, count: int) -> np.ndarray:
    """True for the `count` words of each sentence with the largest `weights` (n, length)."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    chosen = np.zeros(weights.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def examine_network(
    model: keras.Model, part: Sentences, rng: np.random.Generator
) -> dict[str, float]:
    """Test figures, and accuracy when words are erased: deciding, as many others, most attended."""
    metrics = score(model, part)
    others = np.zeros(part.deciding.shape, bool)
    for row, tokens in enumerate(part.tokens):
        free = np.flatnonzero((tokens > 0) & ~part.deciding[row])
        others[row, rng.choice(free, 2, replace=False)] = True
    ways = {"deciding": part.deciding, "other": others}
    if "attention_recall" in metrics:
        weights = model.predict(part.tokens, batch_size=500, verbose=0)["weights"]
        ways["most_attended"] = most_attended(weights, 2)
    for way, chosen in ways.items():
        changed = Sentences(erased(part, chosen, rng), part.labels, part.deciding)
        metrics[f"accuracy_without_{way}"] = score(model, changed)["accuracy"]
    return metrics


def examine_attention(config: Config) -> dict[str, float]:
    """Load the networks of a comparison's first seed and test them again."""
    trained = labkit.find_run(f"{LAB}.attention_exercise", config.run)
    if config.data == "real":
        fail("--data real: the sentences are generated")
    compared = json.loads((trained.folder / "comparison.json").read_text())
    smoke = trained.config["smoke"]
    labkit.prepare(config.seed)
    import tp5_seq2seq_attention.attention  # noqa: F401  the saved models' layers

    name, parent = trained.state["name"], trained.state["run_id"] or ""
    source = trained.state["data_source"]
    with labkit.start_run(__file__, config, source, name, parent) as run:
        metrics, lines = {}, ["accuracy, recall; accuracy without deciding, other, attended words"]
        for network, folder in compared["folders"].items():
            path = trained.folder.parents[1] / folder
            settings = json.loads((path / "state.json").read_text())["config"]
            part = sentences(settings["task"], settings["length"], smoke)["test"]
            model = keras.saving.load_model(path / "model.keras")
            found = examine_network(model, part, np.random.default_rng(config.seed))
            metrics |= {f"{network}/{key}": value for key, value in found.items()}
            lines.append(
                f"{network}: {found['accuracy']:.3f}, {found.get('attention_recall', np.nan):.3f}; "
                + ", ".join(
                    f"{value:.3f}" for key, value in found.items() if "accuracy_without" in key
                )
            )
        run.log_metrics(metrics)
        _conclude(run, name, lines)
    return run.metrics


def _conclude(run: labkit.Run, name: str, lines: list[str]) -> None:
    summary = "\n".join(lines)
    print(f"\n{summary}\n")
    run.save_text("report.md", f"# {name}, examined\n\n```\n{summary}\n```\n")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    return {"seq2seq": examine_forecaster, "attention": examine_attention}[config.exercise](config)


if __name__ == "__main__":
    main()
