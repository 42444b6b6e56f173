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
from labkit import results
from labkit.arguments import fail
from tp5_seq2seq_attention.floors import published
from tp5_seq2seq_attention.series import Series, SeriesName, load

keras = labkit.lazy("keras")
mlflow = labkit.lazy("mlflow")
batches = labkit.lazy("labkit.batches")
models = labkit.lazy("tp5_seq2seq_attention.seq2seq_models")
measures = labkit.lazy("tp5_seq2seq_attention.forecast_metrics")
drawings = labkit.lazy("tp5_seq2seq_attention.forecast_figures")


@dataclass(frozen=True)
class Config(labkit.Settings):
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
    units: int | None = None
    """Of the encoder in each direction, half the decoder's, 1 or more; if not given 32, on ETTh1
    64, as in the hand-out."""
    data: labkit.DataChoice = "auto"
    """For ETTh1, the others are generated. auto: real or, without it, a sample; real: real or an
    error."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        super().__post_init__()
        labkit.at_least(self, horizon=1, units=1)
        if self.data == "real" and not self.series.startswith("etth1"):
            raise ValueError(f"--data real: the {self.series} series is generated")


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
    recipe: Recipe, data: Series, seed: int, run: labkit.Run, verbose: int | str = "auto"
) -> tuple[keras.Model, keras.Model]:
    """Fit and return trainer and forecaster, with the weights of the best validation epoch.

    Best by the mean squared error of free-running forecasts: the forecaster makes them.
    """
    labkit.prepare(seed)
    trainer, forecaster = models.build(plan_of(recipe, data))
    training, validation = data.train, data.validation
    steps = recipe.epochs * -(-len(training) // recipe.batch_size)
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

    def windows(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """What is done to a window is done to its target, but for the noise on the history."""
        window = np.concatenate([x, y], axis=-1)  # (B, C, look_back + horizon)
        if recipe.jitter or recipe.shift:
            window += recipe.shift * rng.standard_normal((len(x), 1, 1), np.float32)
            window[..., : x.shape[-1]] += recipe.jitter * rng.standard_normal(x.shape, np.float32)
        return window, window[..., x.shape[-1] :]

    def begin(epoch: int, logs: dict | None = None) -> None:
        if recipe.decoder == "scheduled":  # from the epoch alone, so that a resume is exact
            decoder.sampling_rate.assign(sampling_rate(epoch, recipe.epochs))

    def end(epoch: int, logs: dict) -> None:
        forecast, _ = models.free_running(forecaster, validation.x)
        errors = measures.point_errors(forecast[..., 0], validation.y, data.unit)
        logs |= {f"val_{name}": value for name, value in errors.items()}
        logs["seconds"] = run.seconds

    trainer.fit(
        batches.Batches(training.x, training.y, recipe.batch_size, seed, run.first_epoch, windows),
        epochs=recipe.epochs,
        initial_epoch=run.first_epoch,
        shuffle=False,  # Batches shuffles, in an order that a resumed run repeats
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end),
            run.keeps_best("val_mse", "min"),
            run.checkpoints(trainer),
        ],
        verbose=verbose,
    )
    trainer.load_weights(run.best_file)  # the forecaster's too: they are the same
    return trainer, forecaster


def plan_of(recipe: Recipe, data: Series) -> models.Plan:
    """The network that `recipe` asks for, in the sizes of `data`."""
    return models.Plan(
        look_back=data.shape.look_back, horizon=data.shape.horizon,
        segment=data.shape.segment, channels=len(data.channels), units=recipe.units,
        heads=recipe.heads, dropout=recipe.dropout, decoder=recipe.decoder,
        normalise=recipe.normalise, linear=recipe.linear and recipe.decoder == "direct",
    )  # fmt: skip


# --- Evaluation ----------------------------------------------------------------------------------


def evaluate(
    trainer: keras.Model, forecaster: keras.Model, data: Series, decoder: str
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """All test figures, and the arrays that the plots are drawn from.

    Beside the free-running errors that under teacher forcing, which `direct` has none of.
    """
    metrics, arrays = measures.measure(forecaster, data)
    if decoder != "direct":
        windows = np.concatenate([data.test.x, data.test.y], axis=-1)
        shown = trainer.predict(windows, batch_size=256, verbose=0)
        forced = measures.point_errors(shown[..., 0], data.test.y, data.unit)["mse"]
        metrics |= {"teacher_forced_mse": forced, "free_running_gap": metrics["mse"] - forced}
    return metrics, arrays


# --- Report, main --------------------------------------------------------------------------------


def summary(metrics: dict[str, float], data: Series, smoke: bool) -> str:
    """Markdown: the test result beside its floors and published figures, and how it came about."""
    lines = [
        f"Free-running, with the weights of epoch {metrics['best_epoch']:.0f}, whose validation "
        f"MSE is the lowest: {metrics['validation_mse']:.4f}. MSE of the first lead time "
        f"{metrics['first_lead_time_mse']:.4f}, of the last {metrics['last_lead_time_mse']:.4f}.",
        f"90 % intervals hold {100 * metrics['coverage']:.1f} % "
        f"({100 * metrics['raw_coverage']:.1f} % before calibration on validation windows), "
        f"mean width {metrics['interval_width']:.3f}.",
        f"Attention: 90 % in {metrics['attention_span']:.1f} of {metrics['attention_steps']:.0f} "
        "encoder steps (uniform attention: "
        f"{metrics['attention_span_of_uniform_attention']:.0f}), "
        f"{metrics['attention_distance']:.1f} steps back in the mean.",
    ]
    if "teacher_forced_mse" in metrics:
        lines.append(
            f"With teacher forcing {metrics['teacher_forced_mse']:.4f}, which is no forecast: "
            f"free-running costs {metrics['free_running_gap']:+.4f}."
        )
    lines += [
        f"{name.removesuffix('_mse').replace('_', ' ')}: {value:.4f}"
        for name, value in metrics.items()
        if name.startswith("air_passengers")
    ]
    lines += [f"published, {name}: {value:.3f}" for name, value in published(data, smoke).items()]
    shown = {"mse": "test MSE", "mae": "test MAE"}
    table = results.beside_floors(metrics, shown, "BiLSTM + attention")
    return table + "\n" + "".join(f"- {line}\n" for line in lines)


def settled(config: Config) -> tuple[Config, Recipe]:
    """The settings with everything that was left open filled in, and the recipe that follows."""
    recipe = RECIPES[config.series]
    recipe = replace(
        recipe,
        decoder=recipe.decoder if config.decoder == "auto" else config.decoder,
        normalise=recipe.normalise if config.normalise == "auto" else config.normalise,
        epochs=2 if config.smoke else config.epochs or recipe.epochs,
        units=8 if config.smoke else config.units or recipe.units,
    )
    filled = {name: getattr(recipe, name) for name in ("decoder", "normalise", "epochs", "units")}
    return replace(config, **filled), recipe


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Train, evaluate once on the test windows, track; return the final metrics."""
    config, recipe = settled(labkit.parse(Config, argv))
    try:
        data = load(config.data, config.smoke, config.series, config.horizon)
    except ValueError as error:
        fail(str(error))
    config = replace(config, horizon=data.shape.horizon)
    name = f"bilstm{recipe.units}_{recipe.decoder}-adam-{recipe.point}+pinball-s{config.seed}"
    with labkit.start_run(__file__, config, data.source, name) as run:
        if not run.is_finished:
            described = {f"recipe_{key}": value for key, value in asdict(recipe).items()}
            run.track(mlflow.log_params, described)
            trainer, forecaster = train(
                recipe, data, config.seed, run, 2 if config.smoke else "auto"
            )
            metrics = {
                "train_seconds": run.seconds,
                "parameters": forecaster.count_params(),
                "best_epoch": int(np.argmin(run.history["val_mse"])) + 1,
            }
            forecaster.save(run.folder / "model.keras")
            found, arrays = evaluate(trainer, forecaster, data, recipe.decoder)
            run.log_metrics(metrics | found)
            for figure_name, figure in drawings.draw_all(data, arrays, run.history).items():
                run.save_figure(figure_name, figure)
            run.save_report(
                f"{config.series}, horizon {config.horizon}",
                f"{summary(run.metrics, data, config.smoke)}\nRecipe: {asdict(recipe)}.",
            )
    print(f"\n{summary(run.metrics, data, config.smoke)}")
    return run.metrics


if __name__ == "__main__":
    main()
