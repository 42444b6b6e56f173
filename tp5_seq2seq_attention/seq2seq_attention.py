"""Forecast with a BiLSTM encoder and an LSTM decoder that looks back: does it beat a straight line?

    python tp5_seq2seq_attention/seq2seq_attention.py                       # the hand-out's series
    python tp5_seq2seq_attention/seq2seq_attention.py --decoder forced      # teacher forcing only
    python tp5_seq2seq_attention/seq2seq_attention.py --horizon 20
    python tp5_seq2seq_attention/seq2seq_attention.py --series monthly
    python tp5_seq2seq_attention/seq2seq_attention.py --series etth1        # two days at a time
    python tp5_seq2seq_attention/seq2seq_attention.py --series etth1 --horizon 720
    python tp5_seq2seq_attention/seq2seq_attention.py --series etth1-ot     # oil temperature alone
    python tp5_seq2seq_attention/seq2seq_attention.py --smoke               # all of it, in seconds

Teacher forcing is for training alone: validation, test and figures come from a model that has no
input for the future. README.md has the figures with their spread and time. Add --resume to go on
after a crash.

References: Bahdanau et al. (ICLR 2015), Luong et al. (EMNLP 2015), Bengio et al. (NeurIPS 2015) for
scheduled sampling; `series.py`, `seq2seq_models.py` and `floors.py` name theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

import labkit
from labkit.arguments import fail
from tp5_seq2seq_attention.floors import HORIZONS, PUBLISHED, floor_forecasts
from tp5_seq2seq_attention.series import (
    SYNTHETIC_NOISE,
    Series,
    SeriesName,
    Windows,
    load_series,
)

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")
models = labkit.lazy("tp5_seq2seq_attention.seq2seq_models")
measures = labkit.lazy("tp5_seq2seq_attention.forecast_metrics")
drawings = labkit.lazy("tp5_seq2seq_attention.forecast_figures")


@dataclass(frozen=True)
class Config:
    """Settings of one training."""

    series: SeriesName = "synthetic"
    """See series.py."""
    horizon: int | None = None
    """Steps to forecast, 1 or more; if not given 10, 12 or, on ETTh1, 96 (a multiple of 48)."""
    decoder: Literal["auto", "forced", "scheduled", "direct"] = "auto"
    """forced: teacher forcing; scheduled: its own output takes over bit by bit; direct: it is told
    which step it writes, never what it wrote; auto: by series."""
    normalise: Literal["auto", "none", "last", "instance"] = "auto"
    """Of each window: nothing, its last value as zero, or mean and deviation; auto: by series."""
    epochs: int | None = None
    """Passes over the training windows, 1 or more; the series' own number if not given."""
    seed: int = 0
    """Seed of weights, order, dropout and coins; never of the series or its parts."""
    data: labkit.DataChoice = "auto"
    """For ETTh1. auto: real or, without it, a sample; real: real or an error."""
    smoke: bool = False
    """One epoch of a small network on few windows, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted training of the same settings, code and data."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        labkit.at_least(self, horizon=1, epochs=1, seed=0)


@dataclass(frozen=True)
class Recipe:
    """How a series is learnt."""

    decoder: str
    normalise: str
    epochs: int
    batch_size: int
    peak_rate: float
    """Adam's learning rate after the first tenth of the training; then a cosine down to 0."""
    units: int
    heads: int
    dropout: float
    point: str
    """Loss of the forecast: mse, mae or huber."""
    jitter: float = 0.0
    """Deviation of the noise that is added to the history in training, in scaled units."""
    shift: float = 0.0
    """Deviation of the constant that is added to a window in training, in scaled units: the trend
    leads to levels that training has not seen."""
    linear: bool = False
    """Whether a linear map is added to the direct decoder's forecast."""


SYNTHETIC = Recipe(
    decoder="scheduled", normalise="none", epochs=50, batch_size=64, peak_rate=4e-3,
    units=32, heads=1, dropout=0.1, point="mse", jitter=0.2, shift=0.4,
)  # fmt: skip
HOURLY = Recipe(
    decoder="direct", normalise="last", epochs=6, batch_size=64, peak_rate=1e-3,
    units=64, heads=4, dropout=0.3, point="mae",
)  # fmt: skip
RECIPES = {
    "synthetic": SYNTHETIC,
    "monthly": replace(SYNTHETIC, normalise="last", epochs=12, dropout=0.2, shift=0.0),
    "etth1": HOURLY,
    "etth1-ot": HOURLY,
}


def sampling_rate(epoch: int, epochs: int) -> float:
    """Share of steps that see the decoder's own output: 0 at first, 1 from two thirds on."""
    return min(1.0, 1.5 * epoch / max(1, epochs))


# --- Training ------------------------------------------------------------------------------------


def train(
    recipe: Recipe, series: Series, seed: int, run: labkit.Run, verbose: int | str = "auto"
) -> tuple[keras.Model, keras.Model]:
    """Fit and return trainer and forecaster, with the weights of the best validation epoch.

    Best by the mean squared error of free-running forecasts: the forecaster makes them.
    """
    labkit.prepare(seed)
    trainer, forecaster = models.build(plan_of(recipe, series))
    training, validation = series.parts["train"], series.parts["validation"]
    steps = recipe.epochs * -(-len(training.windows) // recipe.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.peak_rate / 30, steps - steps // 10,
        warmup_target=recipe.peak_rate, warmup_steps=max(1, steps // 10),
    )  # fmt: skip
    trainer.compile(
        keras.optimizers.Adam(rate, clipnorm=1.0),  # LSTMs meet a cliff now and then
        loss=models.ForecastLoss(recipe.point),
        jit_compile=False,
    )
    decoder = trainer.get_layer("decoder")

    def varied(windows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        shifts = rng.standard_normal((len(windows), 1, 1), np.float32)
        windows = windows + np.float32(recipe.shift) * shifts
        history = windows[..., : training.look_back]
        history += recipe.jitter * rng.standard_normal(history.shape, np.float32)
        return windows

    def begin(epoch: int, logs: dict | None = None) -> None:
        if recipe.decoder == "scheduled":  # from the epoch alone, so that a resume is exact
            decoder.sampling_rate.assign(sampling_rate(epoch, recipe.epochs))

    def end(epoch: int, logs: dict) -> None:
        forecast, _ = free_running(forecaster, validation)
        errors = measures.point_errors(forecast[..., 0], validation.future, series.unit)
        logs |= {f"val_{name}": value for name, value in errors.items()}
        logs["seconds"] = run.seconds

    trainer.fit(
        models.WindowBatches(
            training, recipe.batch_size, seed, run.first_epoch,
            varied if recipe.jitter or recipe.shift else None,
        ),
        epochs=recipe.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end),
            run.keeps_best("val_mse", "min"),
            run.checkpoints(trainer),
        ],
        verbose=verbose,
    )  # fmt: skip
    trainer.load_weights(run.best_file)  # the forecaster's too: they are the same
    return trainer, forecaster


def plan_of(recipe: Recipe, series: Series) -> models.Plan:
    """The network that `recipe` asks for, in the sizes of `series`."""
    return models.Plan(
        look_back=series.shape.look_back, horizon=series.shape.horizon,
        segment=series.shape.segment, channels=len(series.channels), units=recipe.units,
        heads=recipe.heads, dropout=recipe.dropout, decoder=recipe.decoder,
        normalise=recipe.normalise, linear=recipe.linear and recipe.decoder == "direct",
    )  # fmt: skip


def free_running(forecaster: keras.Model, part: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts (n, channels, horizon, 3) and attention (n channels, S, T) from histories."""
    found = forecaster.predict(np.ascontiguousarray(part.history), batch_size=256, verbose=0)
    return found["forecast"], found["attention"]


# --- Evaluation ----------------------------------------------------------------------------------


def evaluate(
    trainer: keras.Model | None, forecaster: keras.Model, series: Series, decoder: str
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """All test figures, and the arrays that the plots are drawn from.

    `trainer` None leaves the teacher-forced error out, which `direct` has none of.
    """
    validation, test, unit = series.parts["validation"], series.parts["test"], series.unit
    checked, _ = free_running(forecaster, validation)
    forecast, attention = free_running(forecaster, test)
    metrics = measures.point_errors(forecast[..., 0], test.future, unit)
    errors = measures.point_errors(checked[..., 0], validation.future, unit)
    metrics |= {f"validation_{name}": value for name, value in errors.items()}
    if trainer is not None and decoder != "direct":
        shown = trainer.predict(np.ascontiguousarray(test.windows), batch_size=256, verbose=0)
        forced = measures.point_errors(shown[..., 0], test.future, unit)["mse"]
        metrics |= {"teacher_forced_mse": forced, "free_running_gap": metrics["mse"] - forced}
    by_lead_time = measures.lead_time_errors(forecast[..., 0], test.future, unit)
    metrics |= {
        "first_lead_time_mse": by_lead_time[0],
        "last_lead_time_mse": by_lead_time[-1],
    }

    ends = forecast[..., 1:]
    raw = measures.interval_metrics(ends, test.future, unit)
    metrics |= {f"raw_{name}": value for name, value in raw.items()}
    wider = measures.widening(checked[..., 1:], validation.future)
    ends = np.stack([ends[..., 0] - wider, ends[..., 1] + wider], axis=-1)
    metrics |= measures.interval_metrics(ends, test.future, unit)
    metrics |= measures.span_metrics(attention, series.shape.segment)

    floors = floor_forecasts(series.parts, series.shape.period, series.shape.anchored)
    for name, predicted in floors.items():
        errors = measures.point_errors(predicted, test.future, unit)
        metrics |= {f"floor_{name}": errors["mse"], f"floor_{name}_mae": errors["mae"]}
    if series.channels == ("synthetic",):
        metrics["floor_noise"] = SYNTHETIC_NOISE**2
    if "air_passengers" in series.parts:
        metrics |= air_passengers(forecaster, series)
    arrays = {"forecast": forecast, "ends": ends, "attention": attention}
    return {name: float(value) for name, value in metrics.items()}, arrays | {
        f"floor_{name}": predicted for name, predicted in floors.items()
    }


def air_passengers(forecaster: keras.Model, series: Series) -> dict[str, float]:
    """Errors on a real series that training never saw, beside the floors' on the same."""
    part = series.parts["air_passengers"]
    forecast, _ = free_running(forecaster, part)
    forecasts = {"": forecast[..., 0]} | {
        f"_{name}": predicted
        for name, predicted in floor_forecasts(
            series.parts, series.shape.period, series.shape.anchored, "air_passengers"
        ).items()
    }
    return {
        f"air_passengers{name}_mse": measures.point_errors(predicted, part.future, 1)["mse"]
        for name, predicted in forecasts.items()
    }


def published(config: Config, source: str) -> dict[str, float]:
    """Published mean squared errors under the same protocol; none where there are none."""
    same = config.series == "etth1" and config.horizon in HORIZONS and source.startswith("real")
    if not same or config.smoke:
        return {}
    return {name: row[HORIZONS.index(config.horizon)] for name, row in PUBLISHED.items()}


# --- Report, main --------------------------------------------------------------------------------


def show(metrics: dict[str, float], config: Config, source: str) -> dict[str, float]:
    """Print the test result beside its floors and return `metrics`."""
    print(
        f"Test error, free-running: MSE {metrics['mse']:.4f}, MAE {metrics['mae']:.4f}; "
        f"validation MSE {metrics['validation_mse']:.4f}, epoch {metrics['best_epoch']:.0f}\n"
        f"  first lead time {metrics['first_lead_time_mse']:.4f}, "
        f"last lead time {metrics['last_lead_time_mse']:.4f}"
    )
    if "teacher_forced_mse" in metrics:
        print(
            f"  with teacher forcing {metrics['teacher_forced_mse']:.4f}, which is no forecast: "
            f"free-running costs {metrics['free_running_gap']:+.4f}"
        )
    print(
        f"  90 % intervals hold {100 * metrics['coverage']:.1f} % "
        f"({100 * metrics['raw_coverage']:.1f} % before calibration), "
        f"mean width {metrics['interval_width']:.3f}\n"
        f"  attention: 90 % in {metrics['attention_span']:.1f} of "
        f"{metrics['attention_steps']:.0f} encoder steps (uniform attention: "
        f"{metrics['attention_span_of_uniform_attention']:.0f}), "
        f"{metrics['attention_distance']:.1f} steps back in the mean"
    )
    for name, value in metrics.items():
        if name.startswith("floor_") and not name.endswith("_mae"):
            print(f"  floor, {name.removeprefix('floor_').replace('_', ' ')}: {value:.4f}")
        if name.startswith("air_passengers"):
            print(f"  {name.removesuffix('_mse').replace('_', ' ')}: {value:.4f}")
    for name, value in published(config, source).items():
        print(f"  published, {name}: {value:.3f}")
    return metrics


def report(config: Config, recipe: Recipe, metrics: dict[str, float], source: str) -> str:
    """The run's `report.md`: result beside its floors, and how it was trained."""
    rows = "\n".join(f"| {name} | {value:.5f} |" for name, value in metrics.items())
    rows += "".join(
        f"\n| published mse, {name} | {value:.3f} |"
        for name, value in published(config, source).items()
    )
    return (
        f"# {config.series}, horizon {config.horizon}\n\nData: {source}. Seed {config.seed}."
        f"\n\n| metric | value |\n| --- | --- |\n{rows}\n\nRecipe: {asdict(recipe)}. The weights "
        "of the lowest free-running validation error are tested, once. Intervals are calibrated "
        "on validation windows.\n"
    )


def settled(config: Config) -> tuple[Config, Recipe]:
    """The settings with everything that was left open filled in, and the recipe that follows."""
    recipe = RECIPES[config.series]
    recipe = replace(
        recipe,
        decoder=recipe.decoder if config.decoder == "auto" else config.decoder,
        normalise=recipe.normalise if config.normalise == "auto" else config.normalise,
        epochs=1 if config.smoke else config.epochs or recipe.epochs,
        units=8 if config.smoke else recipe.units,
    )
    filled = {"decoder": recipe.decoder, "normalise": recipe.normalise, "epochs": recipe.epochs}
    return replace(config, **filled), recipe


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test windows, track; return the final metrics."""
    config, recipe = settled(labkit.parse(Config, argv))
    try:
        series = load_series(config.series, config.horizon, config.data, config.smoke)
    except ValueError as error:
        fail(str(error))
    config = replace(config, horizon=series.shape.horizon)
    labkit.prepare(config.seed)  # before anything imports Keras
    name = f"bilstm{recipe.units}_{recipe.decoder}-adam-{recipe.point}+pinball-s{config.seed}"
    with labkit.start_run(__file__, config, series.source, name) as run:
        if run.is_finished:
            return show(run.metrics, config, series.source)
        described = {f"recipe_{key}": value for key, value in asdict(recipe).items()}
        run.track(mlflow.log_params, described)
        trainer, forecaster = train(recipe, series, config.seed, run, 2 if config.smoke else "auto")
        metrics = {
            "train_seconds": run.seconds,
            "parameters": forecaster.count_params(),
            "best_epoch": int(np.argmin(run.history["val_mse"])) + 1,
        }
        found, arrays = evaluate(trainer, forecaster, series, recipe.decoder)
        metrics |= found
        run.log_metrics(metrics)
        for figure_name, figure in drawings.draw_all(series, arrays, run.history).items():
            run.save_figure(figure_name, figure)
        run.save_text("report.md", report(config, recipe, run.metrics, series.source))
        forecaster.save(run.folder / "model.keras")
    return show(run.metrics, config, series.source)


if __name__ == "__main__":
    main()
