"""Does a trained network keep its figures, and what do its forecasts or its attention rest on?

    python tp5_seq2seq_attention/evaluate.py             # the last training of this lab
    python tp5_seq2seq_attention/evaluate.py --run ID    # another: MLflow run id, folder

Nothing is trained or chosen here. Of a forecaster: errors by channel and step, how often its
intervals hold, what it forecasts when its history is changed, how fast it is. Of the attention
networks (`attention_examination.py`): accuracy and recall from the saved files, and what happens
when the words that decide, or as many others, are replaced by fillers: the test of an explanation.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import labkit
from labkit import results
from labkit.arguments import fail
from tp5_seq2seq_attention.floors import published
from tp5_seq2seq_attention.series import Series, load

keras = labkit.lazy("keras")
attention = labkit.lazy("tp5_seq2seq_attention.attention_examination")
drawings = labkit.lazy("tp5_seq2seq_attention.forecast_figures")
measures = labkit.lazy("tp5_seq2seq_attention.forecast_metrics")
models = labkit.lazy("tp5_seq2seq_attention.seq2seq_models")

EXAMINES = ("tp5_seq2seq_attention.seq2seq_attention", "tp5_seq2seq_attention.attention_exercise")


@dataclass(frozen=True)
class Config:
    """Settings of one evaluation."""

    run: str = "latest"
    """The training to examine: latest, the beginning of an MLflow run id, or a folder name."""
    data: labkit.DataChoice = "auto"
    """auto: what it was trained on; real and sample are for ETTh1, the others are generated."""
    seed: int = 0
    """Of the fillers that replace words."""
    smoke: bool = False
    """Few windows or sentences, as in training with --smoke."""


def forgetting(forecaster: keras.Model, data: Series) -> dict[int, float]:
    """Test mean squared error when all but the last steps of the history are made flat.

    Keys are the number of steps that are left; the rest repeats the first of them. It shows how far
    back the forecaster uses what it is given.
    """
    every = max(1, len(data.test) // 400)  # a few hundred windows suffice
    x, y, found = data.test.x[::every], data.test.y[::every], {}
    look_back = data.shape.look_back
    for kept in sorted({look_back, *(look_back * share // 8 for share in (1, 2, 4, 6))}):
        changed, start = x.copy(), look_back - kept
        changed[..., :start] = changed[..., start : start + 1]
        forecast, _ = models.free_running(forecaster, changed)
        found[kept] = measures.point_errors(forecast[..., 0], y, data.unit)["mse"]
    return found


def milliseconds(forecaster: keras.Model, history: np.ndarray, repeats: int = 10) -> float:
    """Median time of one window's forecast, the first call left out."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        forecaster.predict_on_batch(history[:1])
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[1:]))


def examine(
    trained: labkit.Run, data: Series, run: labkit.Run, smoke: bool
) -> tuple[dict[str, float], str]:
    """Figures of a forecaster and the report on them; its plots are saved in `run`."""
    forecaster = models.load_forecaster(trained.folder / "model.keras")
    metrics, arrays = measures.measure(forecaster, data)
    by_channel = measures.channel_errors(arrays["forecast"], data)
    metrics |= by_channel
    for floor in (name for name in arrays if name.startswith("floor_")):
        errors = measures.channel_errors(arrays[floor], data)
        metrics |= {f"{floor}_{name}": value for name, value in errors.items()}
    forgotten = forgetting(forecaster, data)
    metrics |= {f"mse_of_last_{kept}": value for kept, value in forgotten.items()}
    metrics["ms_per_window"] = milliseconds(forecaster, data.test.x)

    ridge = {name: metrics[f"floor_ridge_{name}"] for name in by_channel}
    run.save_figure("channels", drawings.channels_figure(by_channel, ridge, forgotten))
    run.save_figure("error_by_step", drawings.errors_figure(data, arrays))
    run.save_figure("forecasts", drawings.forecasts_figure(data, arrays))
    shown = {"mse": "test MSE", "mae": "test MAE"}
    shown |= {name: name.replace("mse_", "MSE ") for name in by_channel}
    lines = [
        f"{len(data.test)} windows of {data.source}.",
        f"90 % intervals hold {100 * metrics['coverage']:.1f} %, width "
        f"{metrics['interval_width']:.3f}, interval score {metrics['interval_score']:.3f}.",
        "MSE with only the last steps of the history: "
        + ", ".join(f"{kept}: {value:.4f}" for kept, value in forgotten.items()) + ".",
        f"One window: {metrics['ms_per_window']:.1f} ms.",
        *(f"published, {name}: {value:.3f}" for name, value in published(data, smoke).items()),
    ]  # fmt: skip
    table = results.beside_floors(metrics, shown, "BiLSTM + attention")
    return metrics, table + "\n" + "".join(f"- {line}\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluate, print and log; return the metrics."""
    config = labkit.parse(Config, argv)
    trained = labkit.find_run(EXAMINES, config.run)
    smoke, source = config.smoke or trained.config["smoke"], trained.data_source
    if config.data == "real" and source.startswith("simulated"):
        fail("--data real: this run was trained on generated data")
    data = None
    if trained.state["script"] == EXAMINES[0]:
        same = "real" if source.startswith("real") else "sample"
        choice = same if config.data == "auto" else config.data
        data = load(choice, smoke, trained.config["series"], trained.config["horizon"])
        source = data.source
    labkit.prepare(config.seed)
    with labkit.examination(__file__, config, trained, source) as run:
        metrics, text = (
            examine(trained, data, run, smoke)
            if data is not None
            else attention.examine(trained, config.seed, smoke)
        )
        run.log_metrics(metrics)
        run.save_report(f"{trained.state['name']}, examined", text)
    print(f"\n{text}")
    return run.metrics


if __name__ == "__main__":
    main()
