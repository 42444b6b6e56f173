"""TP5's forecasters: no way for the future to leak, decoding against loops, measures, figures."""

import math
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import labkit
from tp5_seq2seq_attention import evaluate, forecast_figures, seq2seq_attention
from tp5_seq2seq_attention import forecast_metrics as measures
from tp5_seq2seq_attention.seq2seq_attention import RECIPES, sampling_rate
from tp5_seq2seq_attention.seq2seq_models import (
    QUANTILES,
    ForecastLoss,
    Plan,
    build,
    free_running,
    load_forecaster,
)
from tp5_seq2seq_attention.series import Series, Shape, load

SCRIPT = "tp5_seq2seq_attention.seq2seq_attention"
RNG = np.random.default_rng(0)
WINDOWS = RNG.standard_normal((6, 2, 20)).astype(np.float32).cumsum(axis=-1)
HISTORY, FUTURE = WINDOWS[..., :12], WINDOWS[..., 12:]


def plan(**changes) -> Plan:
    options = {
        "look_back": 12, "horizon": 8, "segment": 2, "channels": 2, "units": 4, "heads": 2,
        "dropout": 0.3, "decoder": "forced", "normalise": "none", "linear": False,
    }  # fmt: skip
    return Plan(**options | changes)


@cache
def models(**changes):
    """Trainer and forecaster, shared by the tests: who changes weights puts them back."""
    labkit.prepare(0)
    trainer, forecaster = build(plan(**changes))
    rng = np.random.default_rng(1)
    for weight in forecaster.trainable_variables:  # away from zeros, so that all of it matters
        weight.assign(weight + 0.1 * rng.standard_normal(weight.shape))
    return trainer, forecaster


def outputs(model: keras.Model, x: np.ndarray):
    """What `predict` gives, without its compilation."""
    return keras.tree.map_structure(np.array, model(x))


# --- No future -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["forced", "scheduled", "direct"])
def test_the_forecaster_has_no_input_for_the_future(decoder):
    _, forecaster = models(decoder=decoder)
    assert forecaster.input.shape == (None, 2, 12)
    found = outputs(forecaster, HISTORY)
    assert found["forecast"].shape == (6, 2, 8, 3)
    assert found["attention"].shape == (12, 4, 6)


@pytest.mark.parametrize("decoder", ["forced", "direct"])
def test_true_values_reach_later_steps_of_the_trainer_only(decoder):
    trainer, _ = models(decoder=decoder)
    before = outputs(trainer, WINDOWS)
    changed = WINDOWS.copy()
    changed[..., 16:] += 3  # the third of four segments, and the last
    after = outputs(trainer, changed)
    np.testing.assert_allclose(after[:, :, :6], before[:, :, :6], rtol=1e-5, atol=1e-6)
    if decoder == "direct":
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    else:
        assert np.abs(after[:, :, 6:] - before[:, :, 6:]).max() > 1e-3


def test_free_running_is_teacher_forcing_on_its_own_forecasts():
    trainer, forecaster = models()
    forecast = outputs(forecaster, HISTORY)["forecast"]
    own = np.concatenate([HISTORY, forecast[..., 0]], axis=-1)
    np.testing.assert_allclose(outputs(trainer, own), forecast, rtol=1e-4, atol=1e-5)
    assert np.abs(outputs(trainer, WINDOWS) - forecast).max() > 1e-3


def test_scheduled_sampling_goes_from_the_truth_to_the_own_output():
    trainer, forecaster = models(decoder="scheduled", dropout=0.0)
    decoder = trainer.get_layer("decoder")
    forced = outputs(trainer, WINDOWS)
    free = outputs(forecaster, HISTORY)["forecast"]
    decoder.sampling_rate.assign(0.0)
    np.testing.assert_allclose(trainer(WINDOWS, training=True), forced, rtol=1e-4, atol=1e-5)
    decoder.sampling_rate.assign(1.0)
    np.testing.assert_allclose(trainer(WINDOWS, training=True), free, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs(trainer, WINDOWS), forced, rtol=1e-4, atol=1e-5)
    decoder.sampling_rate.assign(0.5)
    mixed = np.array(trainer(WINDOWS, training=True))
    assert np.abs(mixed - forced).max() > 1e-4
    assert np.abs(mixed - free).max() > 1e-4
    assert [sampling_rate(epoch, 6) for epoch in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


# --- Network -------------------------------------------------------------------------------------


def test_a_step_of_the_decoder_against_a_loop():
    """The first segment, written out: LSTM, cross-attention of two heads, merge, value."""
    _, forecaster = models(channels=1)
    history = HISTORY[:, :1]
    parts = {layer.name: layer for layer in forecaster.layers}
    segments = history.reshape(-1, 6, 2)
    memory, forward, _, backward, _ = parts["encoder"](parts["embed"](segments))
    state = parts["bridge"](np.concatenate([forward, backward], axis=-1))
    decoder = parts["decoder"]
    kernel, recurrent, bias = (np.array(each) for each in decoder.cell.weights)
    memory, state = np.array(memory), np.array(state)
    found = outputs(forecaster, history)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for row in range(len(history)):
        gates = segments[row, -1] @ kernel + state[row] @ recurrent + bias
        enter, forget, candidate, leave = np.split(gates, 4)
        carry = sigmoid(forget) * 0 + sigmoid(enter) * np.tanh(candidate)
        hidden = sigmoid(leave) * np.tanh(carry)
        attention = decoder.attention
        project = {
            name: (np.array(attention.kernels[name]), np.array(attention.biases[name]))
            for name in attention.kernels
        }
        query = hidden @ project["query"][0] + project["query"][1]
        key = memory[row] @ project["key"][0] + project["key"][1]
        value = memory[row] @ project["value"][0] + project["value"][1]
        joined, weights = [], []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            scores = key[:, part] @ query[part] / 2
            powers = np.exp(scores - scores.max())
            weights.append(powers / powers.sum())
            joined.append(weights[-1] @ value[:, part])
        context = np.concatenate(joined) @ project["output"][0] + project["output"][1]
        features = np.tanh(
            np.concatenate([hidden, context]) @ np.array(decoder.merge.kernel)
            + np.array(decoder.merge.bias)
        )
        expected = features @ np.array(decoder.value.kernel) + np.array(decoder.value.bias)
        np.testing.assert_allclose(found["forecast"][row, 0, :2, 0], expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(
            found["attention"][row, 0], np.mean(weights, axis=0), rtol=1e-3, atol=1e-5
        )


@pytest.mark.parametrize("decoder", ["forced", "direct"])
@pytest.mark.parametrize(("normalise", "scale"), [("last", 1.0), ("instance", 4.0)])
def test_a_normalised_forecast_moves_with_its_series(normalise, scale, decoder):
    _, forecaster = models(normalise=normalise, decoder=decoder, linear=decoder == "direct")
    plain = outputs(forecaster, HISTORY)["forecast"]
    moved = outputs(forecaster, scale * HISTORY + 50)["forecast"]
    np.testing.assert_allclose(moved, scale * plain + 50, rtol=2e-3, atol=2e-2)


def test_channels_share_the_network_and_differ_by_their_vectors():
    _, forecaster = models()
    swapped = outputs(forecaster, HISTORY[:, ::-1])["forecast"][:, ::-1]
    plain = outputs(forecaster, HISTORY)["forecast"]
    assert np.abs(swapped - plain).max() > 1e-3
    alone = outputs(forecaster, HISTORY[2:3])["forecast"]  # each has its own vector
    np.testing.assert_allclose(alone, plain[2:3], rtol=1e-4, atol=1e-5)
    changed = HISTORY.copy()
    changed[:, 1] += 1
    other = outputs(forecaster, changed)["forecast"]
    np.testing.assert_allclose(other[:, 0], plain[:, 0], rtol=1e-4, atol=1e-5)
    vectors = forecaster.get_layer("decoder").channel_vectors
    kept = np.array(vectors)
    vectors.assign(0 * kept)
    swapped = outputs(forecaster, HISTORY[:, ::-1])["forecast"][:, ::-1]
    plain = outputs(forecaster, HISTORY)["forecast"]
    vectors.assign(kept)
    np.testing.assert_allclose(swapped, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder", ["scheduled", "direct"])
def test_a_saved_forecaster_comes_back(decoder, tmp_path):
    _, forecaster = models(decoder=decoder, normalise="instance", linear=decoder == "direct")
    forecaster.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    before, after = (outputs(model, HISTORY) for model in (forecaster, again))
    np.testing.assert_array_equal(before["forecast"], after["forecast"])
    np.testing.assert_array_equal(before["attention"], after["attention"])


def test_impossible_plans_are_refused():
    with pytest.raises(ValueError, match="multiples of the segment, 5"):
        build(plan(segment=5))
    with pytest.raises(ValueError, match="direct decoder"):
        build(plan(linear=True))


# --- Loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["mse", "mae", "huber"])
def test_the_loss_against_a_loop(point):
    future = RNG.standard_normal((2, 1, 3)).astype(np.float32)
    output = 2 * RNG.standard_normal((2, 1, 3, 3)).astype(np.float32)
    total = 0.0
    for index in np.ndindex(2, 1, 3):
        error = future[index] - output[index][0]
        total += {
            "mse": error**2,
            "mae": abs(error),
            "huber": error**2 / 2 if abs(error) < 1 else abs(error) - 0.5,
        }[point]
        for place, quantile in enumerate(QUANTILES, 1):
            miss = future[index] - output[index][place]
            total += quantile * miss if miss > 0 else (quantile - 1) * miss
    assert float(ForecastLoss(point)(future, output)) == pytest.approx(total / 6, rel=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(ForecastLoss(point)))
    assert again.point == point
    with pytest.raises(ValueError, match="rmse"):
        ForecastLoss("rmse")


def test_the_intervals_leave_the_forecast_as_it_is():
    """Their part of the loss has no gradient on what the forecast is made of."""
    import tensorflow as tf

    trainer, _ = models(decoder="direct", linear=True, dropout=0.0)
    with tf.GradientTape() as tape:
        output = trainer(WINDOWS)
        loss = keras.ops.sum(output[..., 1:] - keras.ops.stop_gradient(output[..., :1]))
    gradients = tape.gradient(loss, trainer.trainable_variables)
    touched = {
        variable.path
        for variable, gradient in zip(trainer.trainable_variables, gradients, strict=True)
        if gradient is not None and np.abs(gradient).max() > 0
    }
    assert touched
    assert all("/ends/" in path for path in touched)


# --- Measures ------------------------------------------------------------------------------------


def test_errors_of_known_forecasts():
    future = np.zeros((2, 1, 4))
    forecast = future + np.array([1.0, 2.0, 0.0, -1.0])
    assert measures.point_errors(forecast, future, 2.0) == {"mse": 6.0, "mae": 2.0}
    np.testing.assert_allclose(measures.lead_time_errors(forecast, future, 2.0), [4, 16, 0, 4])


def test_intervals_of_known_coverage():
    future = np.array([[[0.0, 0.5, 1.5, -2.0]]])
    ends = np.stack([np.full((1, 1, 4), -1.0), np.full((1, 1, 4), 1.0)], axis=-1)
    found = measures.interval_metrics(ends, future, 1.0)
    assert found["coverage"] == 0.5
    assert found["interval_width"] == 2
    assert found["interval_score"] == pytest.approx(2 + 20 * (0.5 + 1) / 4)


def test_calibration_reaches_its_share():
    noise = RNG.standard_normal((2000, 2, 3))
    ends = np.stack([np.full(noise.shape, -0.3), np.full(noise.shape, 0.3)], axis=-1)
    wider = measures.widening(ends, noise)
    assert wider.shape == (2, 3)
    fresh = RNG.standard_normal((2000, 2, 3))
    ends = np.stack([ends[..., 0] - wider, ends[..., 1] + wider], axis=-1)
    assert measures.interval_metrics(ends, fresh, 1)["coverage"] == pytest.approx(0.9, abs=0.02)
    wide = np.stack([np.full(noise.shape, -9.0), np.full(noise.shape, 9.0)], axis=-1)
    assert (measures.widening(wide, noise) < 0).all()


def test_spans_of_known_weights():
    uniform = np.full((1, 1, 10), 0.1)
    one = np.zeros((1, 1, 10))
    one[..., 7] = 1
    found = measures.attention_span(np.concatenate([uniform, one], axis=1), segment=24)
    np.testing.assert_allclose(found["span"], [9, 1])
    np.testing.assert_allclose(found["effective"], [10, 1], rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], [math.log(10), 0], atol=1e-9)
    np.testing.assert_allclose(found["distance"], [24 * 4.5, 24 * 2])
    metrics = measures.span_metrics(uniform, segment=24)
    assert metrics["attention_distance"] == pytest.approx(
        metrics["attention_distance_of_uniform_attention"]
    )
    assert metrics["attention_span"] == metrics["attention_span_of_uniform_attention"] == 9


# --- Everything that is measured -----------------------------------------------------------------

NAMES = ("load", "temperature", "wind speed")


class Persistent:
    """Forecasts the last value, plus 0, 1, 2 ... by channel, and an interval of 0.1 around it."""

    def predict(self, history: np.ndarray, **_) -> dict[str, np.ndarray]:
        count, channels, _ = history.shape
        value = np.repeat(history[..., -1:], 4, axis=-1) + np.arange(channels)[:, None]
        forecast = np.stack([value, value - 0.1, value + 0.1], axis=-1)
        weights = np.full((count * channels, 2, 3), 1 / 3)
        return {"forecast": forecast, "attention": weights}


@pytest.fixture
def data() -> Series:
    """Three channels that stay what they are, with noise on what comes."""
    rng = np.random.default_rng(5)

    def part() -> labkit.Part:
        level = rng.standard_normal((30, 3, 1))
        x, noise = level + 0.2 * rng.standard_normal((30, 3, 6)), rng.standard_normal((30, 3, 4))
        return labkit.Part(x.astype(np.float32), (x[..., -1:] + 0.3 * noise).astype(np.float32))

    shape = Shape(look_back=6, horizon=4, segment=2, period=None)
    return Series("sample", part(), part(), part(), NAMES, shape, unit=2.0)


def test_errors_are_of_their_channel(data):
    metrics, arrays = measures.measure(Persistent(), data)
    found = measures.channel_errors(arrays["forecast"], data)
    assert list(found) == ["mse_load", "mse_temperature", "mse_wind_speed"]
    errors = np.repeat(data.test.x[..., -1:], 4, axis=-1) - data.test.y
    for channel, value in enumerate(found.values()):  # in the series' unit, 2
        expected = 4 * np.mean((errors[:, channel] + channel) ** 2, dtype=np.float64)
        assert value == pytest.approx(expected, rel=1e-5)
    assert np.mean(list(found.values())) == pytest.approx(metrics["mse"])
    floor = measures.channel_errors(arrays["floor_persistence"], data)
    assert np.mean(list(floor.values())) == pytest.approx(metrics["floor_persistence"])
    assert floor["mse_load"] == pytest.approx(found["mse_load"])


def test_intervals_and_floors_are_chosen_without_the_test_part(data):
    metrics, arrays = measures.measure(Persistent(), data)
    outside = np.abs(arrays["forecast"] - np.repeat(data.test.x[..., -1:], 4, axis=-1)).max()
    assert outside == pytest.approx(2)  # the last channel's
    other = replace(data, test=replace(data.test, y=3 * data.test.y[::-1]))
    after, moved = measures.measure(Persistent(), other)
    chosen = [name for name in metrics if name.startswith(("calibration", "chosen", "validation"))]
    assert len(chosen) == 5
    for name in chosen:
        assert after[name] == metrics[name], name
    for name, array in arrays.items():
        np.testing.assert_array_equal(moved[name], array)
    wider = np.mean(arrays["ends"][..., 1] - arrays["forecast"]) - 0.1
    assert metrics["calibration_widening"] == pytest.approx(2 * wider, rel=1e-4)

    other = replace(data, validation=replace(data.validation, y=data.validation.y + 9))
    after, _ = measures.measure(Persistent(), other)
    assert all(after[name] != metrics[name] for name in chosen if name != "chosen_lag")


def test_the_future_cannot_change_a_forecast(data):
    labkit.prepare(0)
    _, forecaster = build(plan(look_back=6, horizon=4, channels=3))
    first, _ = measures.measure(forecaster, data)
    output, _ = free_running(forecaster, data.test.x)
    expected = measures.point_errors(output[..., 0], data.test.y, data.unit)
    assert first["mse"] == expected["mse"]
    other = replace(data, test=replace(data.test, y=data.test.y + 1000))
    np.testing.assert_array_equal(
        measures.measure(forecaster, other)[1]["forecast"], output[..., 0]
    )


def test_figures_show_what_was_measured(data):
    metrics, arrays = measures.measure(Persistent(), data)
    figure = forecast_figures.forecasts_figure(data, arrays)
    first = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    np.testing.assert_allclose(first["history"], 2 * data.test.x[0, 2])  # the last channel
    np.testing.assert_allclose(first["measured"], 2 * data.test.y[0, 2])
    np.testing.assert_allclose(first["forecast"], 2 * arrays["forecast"][0, 2])
    np.testing.assert_allclose(first["ridge"], 2 * arrays["floor_ridge"][0, 2])
    figure = forecast_figures.errors_figure(data, arrays)
    curves = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert set(curves) == {"network", "persistence", "seasonal naive", "ridge"}
    assert np.mean(curves["network"]) == pytest.approx(metrics["mse"])
    assert np.mean(curves["ridge"]) == pytest.approx(metrics["floor_ridge"])
    assert curves["network"][0] == pytest.approx(metrics["first_lead_time_mse"])
    weights = np.linspace(0, 1, 6).reshape(2, 3)
    figure = forecast_figures.attention_figure(weights, 2, "")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), weights)
    errors = {"mse_load": 1.0, "mse_wind_speed": 2.0}
    figure = forecast_figures.channels_figure(errors, {"a": 3.0, "b": 4.0}, {2: 0.5, 6: 0.25})
    assert [bar.get_height() for bar in figure.axes[0].patches] == [1, 2, 3, 4]
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), [0.5, 0.25])


# --- Training ------------------------------------------------------------------------------------


def test_it_learns_32_windows_by_heart():
    labkit.prepare(0)
    windows = RNG.standard_normal((32, 1, 12)).astype(np.float32)
    trainer, forecaster = build(
        plan(look_back=8, horizon=4, channels=1, units=24, dropout=0.0, decoder="direct")
    )
    trainer.compile(keras.optimizers.Adam(0.01), ForecastLoss(), jit_compile=False)
    often = np.tile(windows, (150, 1, 1))  # an epoch has a price, a batch has none
    trainer.fit(often, often[..., 8:], batch_size=32, shuffle=False, verbose=0)
    forecast = outputs(forecaster, windows[..., :8])["forecast"][..., 0]
    assert np.mean((forecast - windows[..., 8:]) ** 2) < 0.1 * windows.var()


class GotError(Exception):
    """The batches of a training were seen: nothing more is wanted of it."""


@pytest.mark.parametrize(("name", "horizon"), [("synthetic", 3), ("etth1-ot", 48)])
def test_what_is_done_to_a_window_is_done_to_its_target(name, horizon, monkeypatch):
    def fit(model, batches, **settings):
        raise GotError(batches)

    monkeypatch.setattr(keras.Model, "fit", fit)
    run = SimpleNamespace(
        first_epoch=0, keeps_best=lambda *_: None, checkpoints=lambda model: None, history={}
    )
    data, recipe = load("sample", True, name, horizon), replace(RECIPES[name], units=2, heads=1)
    with pytest.raises(GotError) as stop:
        seq2seq_attention.train(replace(recipe, decoder="direct"), data, 3, run)
    batches = stop.value.args[0]
    batches.batch_size = 24
    assert [len(windows) for windows, _ in map(batches.__getitem__, range(3))] == [24, 24, 16]
    windows, targets = batches[1]
    rows = batches.order[24:48]
    look_back = data.shape.look_back
    np.testing.assert_array_equal(targets, windows[..., look_back:])
    shifts = targets - data.train.y[rows]
    noise = windows[..., :look_back] - data.train.x[rows] - shifts[..., :1]
    np.testing.assert_allclose(shifts, shifts[..., :1].repeat(horizon, axis=-1), atol=1e-6)
    if name == "synthetic":
        assert shifts[..., 0].std() == pytest.approx(recipe.shift, rel=0.5)
        assert noise.std() == pytest.approx(recipe.jitter, rel=0.1)
    else:
        np.testing.assert_array_equal(targets, data.train.y[rows])
        assert not noise.any()


# --- The scripts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> labkit.Run:
    """A smoke training of the default series, three steps ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        seq2seq_attention.main(["--smoke", "--horizon", "3"])
        return labkit.find_run(SCRIPT)


def test_the_epoch_is_chosen_by_free_running_forecasts(trained):
    """What chooses is the error of a model that has only histories, worked out here anew."""
    validation = load("auto", True, "synthetic", 3).validation
    unit = load("auto", True, "synthetic", 3).unit
    forecaster = load_forecaster(trained.folder / "model.keras")
    assert forecaster.input.shape == (None, 1, 50)
    forecast = outputs(forecaster, validation.x)["forecast"][..., 0]
    error = np.mean((forecast - validation.y) ** 2) * unit**2
    errors, best = trained.history["val_mse"], int(trained.metrics["best_epoch"])
    assert len(errors) == 2
    assert errors[best - 1] == min(errors) == pytest.approx(error, rel=1e-4)
    assert trained.metrics["validation_mse"] == pytest.approx(error, rel=1e-4)
    assert trained.metrics["free_running_gap"] == pytest.approx(
        trained.metrics["mse"] - trained.metrics["teacher_forced_mse"]
    )
    rate = float(forecaster.get_layer("decoder").sampling_rate)
    assert rate == pytest.approx(sampling_rate(best - 1, 2))


def test_a_run_has_its_report_and_its_figures(trained):
    assert trained.state["name"] == "bilstm8_scheduled-adam-mse+pinball-s0"
    report = (trained.folder / "report.md").read_text()
    for name in ("persistence", "seasonal naive", "ridge", "noise"):
        assert f"| floor: {name} |" in report
    assert f"| BiLSTM + attention | {trained.metrics['mse']:.4f} |" in report
    assert f"90 % intervals hold {100 * trained.metrics['coverage']:.1f} %" in report
    figures = {path.stem for path in trained.folder.glob("*.png")}
    assert figures == {
        "learning_curves", "forecasts", "error_by_step", "attention", "attention_of_one",
    }  # fmt: skip


def test_generated_series_are_not_examined_on_real_data(trained, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_HOME", str(trained.folder.parents[2]))
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--data", "real"])
    assert "--data real: this run was trained on generated data" in capsys.readouterr().err


def test_etth1_trained_and_examined(capsys):
    arguments = ["--series", "etth1", "--horizon", "48", "--smoke", "--data", "sample"]
    metrics = seq2seq_attention.main(arguments)
    assert np.isfinite(list(metrics.values())).all()
    assert "teacher_forced_mse" not in metrics  # a direct decoder is never shown the truth
    assert "chosen_lag" not in metrics  # it is a day
    examined = evaluate.main(["--run", labkit.find_run(SCRIPT).folder.name])
    printed = capsys.readouterr().out
    assert "floor: ridge 336" in printed
    assert "published" not in printed  # the sample's figures are no ETTh1 figures
    assert metrics.items() <= (examined | {
        name: metrics[name] for name in ("train_seconds", "parameters", "best_epoch")
    }).items()  # fmt: skip
    channels = [f"mse_{name}" for name in ("hufl", "hull", "mufl", "mull", "lufl", "lull", "ot")]
    for floor in ("", "floor_ridge_", "floor_ridge_336_", "floor_persistence_"):
        mean = np.mean([examined[f"{floor}{name}"] for name in channels])
        assert mean == pytest.approx(examined[floor.removesuffix("_") or "mse"], rel=1e-5)
    assert examined["mse_of_last_720"] == pytest.approx(metrics["mse"], rel=1e-5)
    assert (labkit.find_run(evaluate.__name__).folder / "channels.png").exists()
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--data", "real"])
    assert "--data real: ETTh1 can't be had" in capsys.readouterr().err


def test_airline_passengers_are_forecast_beside_the_floors():
    data = load("auto", True, "monthly", 4)
    metrics, _ = measures.measure(Persistent(), data)
    assert metrics["air_passengers_mse"] == pytest.approx(metrics["air_passengers_persistence_mse"])
    ridge, lag = metrics["air_passengers_ridge_mse"], metrics["air_passengers_seasonal_naive_mse"]
    assert ridge < metrics["air_passengers_mse"]
    part = data.air_passengers
    assert lag == pytest.approx(np.mean((part.x[..., -12:-8] - part.y) ** 2), rel=1e-5)
    text = seq2seq_attention.summary(metrics | {"best_epoch": 1}, data, smoke=True)
    assert f"air passengers ridge: {ridge:.4f}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--horizon", "0"], "--horizon must be 1 or more, got 0"),
        (["--series", "etth1", "--horizon", "100", "--data", "sample"], "multiple of 48"),
        (["--horizon", "500"], "choose a smaller --horizon"),
        (["--series", "monthly", "--data", "real"], "--data real: the monthly series is generated"),
    ],
)
def test_impossible_settings_are_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        seq2seq_attention.main(arguments)
    assert message in capsys.readouterr().err
