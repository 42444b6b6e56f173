"""TP5's forecasters: no way for the future to leak, decoding against loops, resuming, measures."""

import math

import keras
import numpy as np
import pytest

import labkit
from tp5_seq2seq_attention import evaluate, forecast_metrics, seq2seq_attention
from tp5_seq2seq_attention.seq2seq_attention import Config, free_running, published, sampling_rate
from tp5_seq2seq_attention.seq2seq_models import (
    QUANTILES,
    ForecastLoss,
    Plan,
    WindowBatches,
    build,
)
from tp5_seq2seq_attention.series import SHAPES, Series, Windows

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


def models(**changes):
    labkit.prepare(0)
    trainer, forecaster = build(plan(**changes))
    for weight in forecaster.trainable_variables:  # away from zeros, so that all of it matters
        weight.assign(weight + 0.1 * RNG.standard_normal(weight.shape))
    return trainer, forecaster


# --- No future -----------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["forced", "scheduled", "direct"])
def test_the_forecaster_has_no_input_for_the_future(decoder):
    _, forecaster = models(decoder=decoder)
    assert forecaster.input.shape == (None, 2, 12)
    found = forecaster.predict(HISTORY, verbose=0)
    assert found["forecast"].shape == (6, 2, 8, 3)
    assert found["attention"].shape == (12, 4, 6)


@pytest.mark.parametrize("decoder", ["forced", "direct"])
def test_true_values_reach_later_steps_of_the_trainer_only(decoder):
    trainer, _ = models(decoder=decoder)
    before = trainer.predict(WINDOWS, verbose=0)
    changed = WINDOWS.copy()
    changed[..., 16:] += 3  # the third of four segments, and the last
    after = trainer.predict(changed, verbose=0)
    np.testing.assert_allclose(after[:, :, :6], before[:, :, :6], rtol=1e-5, atol=1e-6)
    if decoder == "direct":
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    else:
        assert np.abs(after[:, :, 6:] - before[:, :, 6:]).max() > 1e-3


def test_free_running_is_teacher_forcing_on_its_own_forecasts():
    trainer, forecaster = models()
    forecast = forecaster.predict(HISTORY, verbose=0)["forecast"]
    own = np.concatenate([HISTORY, forecast[..., 0]], axis=-1)
    np.testing.assert_allclose(trainer.predict(own, verbose=0), forecast, rtol=1e-4, atol=1e-5)
    assert np.abs(trainer.predict(WINDOWS, verbose=0) - forecast).max() > 1e-3


def test_scheduled_sampling_goes_from_the_truth_to_the_own_output():
    trainer, forecaster = models(decoder="scheduled", dropout=0.0)
    decoder = trainer.get_layer("decoder")
    forced = trainer.predict(WINDOWS, verbose=0)
    free = forecaster.predict(HISTORY, verbose=0)["forecast"]
    decoder.sampling_rate.assign(0.0)
    np.testing.assert_allclose(trainer(WINDOWS, training=True), forced, rtol=1e-4, atol=1e-5)
    decoder.sampling_rate.assign(1.0)
    np.testing.assert_allclose(trainer(WINDOWS, training=True), free, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trainer.predict(WINDOWS, verbose=0), forced, rtol=1e-4, atol=1e-5)
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
    found = forecaster.predict(history, verbose=0)

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
    plain = forecaster.predict(HISTORY, verbose=0)["forecast"]
    moved = forecaster.predict(scale * HISTORY + 50, verbose=0)["forecast"]
    np.testing.assert_allclose(moved, scale * plain + 50, rtol=2e-3, atol=2e-2)


def test_channels_share_the_network_and_differ_by_their_vectors():
    _, forecaster = models()
    swapped = forecaster.predict(HISTORY[:, ::-1], verbose=0)["forecast"][:, ::-1]
    plain = forecaster.predict(HISTORY, verbose=0)["forecast"]
    assert np.abs(swapped - plain).max() > 1e-3
    decoder = forecaster.get_layer("decoder")
    decoder.channel_vectors.assign(np.zeros(decoder.channel_vectors.shape))
    swapped = forecaster.predict(HISTORY[:, ::-1], verbose=0)["forecast"][:, ::-1]
    plain = forecaster.predict(HISTORY, verbose=0)["forecast"]
    np.testing.assert_allclose(swapped, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("decoder", ["scheduled", "direct"])
def test_a_saved_forecaster_comes_back(decoder, tmp_path):
    _, forecaster = models(decoder=decoder, normalise="instance", linear=decoder == "direct")
    forecaster.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    before, after = (model.predict(HISTORY, verbose=0) for model in (forecaster, again))
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
    assert forecast_metrics.point_errors(forecast, future, 2.0) == {"mse": 6.0, "mae": 2.0}
    np.testing.assert_allclose(
        forecast_metrics.lead_time_errors(forecast, future, 2.0), [4, 16, 0, 4]
    )


def test_intervals_of_known_coverage():
    future = np.array([[[0.0, 0.5, 1.5, -2.0]]])
    ends = np.stack([np.full((1, 1, 4), -1.0), np.full((1, 1, 4), 1.0)], axis=-1)
    found = forecast_metrics.interval_metrics(ends, future, 1.0)
    assert found["coverage"] == 0.5
    assert found["interval_width"] == 2
    assert found["interval_score"] == pytest.approx(2 + 20 * (0.5 + 1) / 4)


def test_calibration_reaches_its_share():
    noise = RNG.standard_normal((2000, 2, 3))
    ends = np.stack([np.full(noise.shape, -0.3), np.full(noise.shape, 0.3)], axis=-1)
    wider = forecast_metrics.widening(ends, noise)
    assert wider.shape == (2, 3)
    fresh = RNG.standard_normal((2000, 2, 3))
    ends = np.stack([ends[..., 0] - wider, ends[..., 1] + wider], axis=-1)
    assert forecast_metrics.interval_metrics(ends, fresh, 1)["coverage"] == pytest.approx(
        0.9, abs=0.02
    )
    wide = np.stack([np.full(noise.shape, -9.0), np.full(noise.shape, 9.0)], axis=-1)
    assert (forecast_metrics.widening(wide, noise) < 0).all()


def test_spans_of_known_weights():
    uniform = np.full((1, 1, 10), 0.1)
    one = np.zeros((1, 1, 10))
    one[..., 7] = 1
    found = forecast_metrics.attention_span(np.concatenate([uniform, one], axis=1), segment=24)
    np.testing.assert_allclose(found["span"], [9, 1])
    np.testing.assert_allclose(found["effective"], [10, 1], rtol=1e-6)
    np.testing.assert_allclose(found["entropy"], [math.log(10), 0], atol=1e-9)
    np.testing.assert_allclose(found["distance"], [24 * 4.5, 24 * 2])
    metrics = forecast_metrics.span_metrics(uniform, segment=24)
    assert metrics["attention_distance"] == pytest.approx(
        metrics["attention_distance_of_uniform_attention"]
    )
    assert metrics["attention_span"] == metrics["attention_span_of_uniform_attention"] == 9


# --- The script ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_done_to_a_window_is_done_to_its_target():
    rng = np.random.default_rng(1)
    part = Windows(rng.standard_normal((20, 2, 9)).astype(np.float32), 6)

    def shifted(windows, rng):
        return windows + rng.standard_normal((len(windows), 1, 1), np.float32)

    batches = WindowBatches(part, 8, 0, 0, shifted)
    assert [len(windows) for windows, _ in map(batches.__getitem__, range(3))] == [8, 8, 4]
    windows, targets = batches[0]
    np.testing.assert_array_equal(targets, windows[..., 6:])
    original = {tuple(np.round(row - row[0], 4)) for row in part.windows[:, 0]}
    assert all(tuple(np.round(row - row[0], 4)) in original for row in windows[:, 0])
    assert not np.isin(windows, part.windows).any()


def test_it_learns_32_windows_by_heart():
    labkit.prepare(0)
    windows = RNG.standard_normal((32, 1, 12)).astype(np.float32)
    trainer, forecaster = build(
        plan(look_back=8, horizon=4, channels=1, units=24, dropout=0.0, decoder="direct")
    )
    trainer.compile(keras.optimizers.Adam(0.01), ForecastLoss(), jit_compile=False)
    trainer.fit(windows, windows[..., 8:], batch_size=32, epochs=150, verbose=0)
    forecast = forecaster.predict(windows[..., :8], verbose=0)["forecast"][..., 0]
    assert np.mean((forecast - windows[..., 8:]) ** 2) < 0.1 * windows.var()


@pytest.mark.slow
def test_resumed_equals_uninterrupted_and_the_evaluation_agrees(tmp_path, monkeypatch):
    arguments = ["--smoke", "--data", "sample"]
    monkeypatch.setattr(
        seq2seq_attention, "settled",
        lambda config, original=seq2seq_attention.settled: (
            lambda filled, recipe: (
                seq2seq_attention.replace(filled, epochs=2),
                seq2seq_attention.replace(recipe, epochs=2),
            )
        )(*original(config)),
    )  # fmt: skip
    whole = seq2seq_attention.main(arguments)
    run = labkit.find_run(SCRIPT)
    assert run.state["name"].startswith("bilstm8_")
    assert whole["best_epoch"] == np.argmin(run.history["val_mse"]) + 1
    assert whole["validation_mse"] == pytest.approx(min(run.history["val_mse"]), rel=1e-5)
    assert whole["free_running_gap"] == pytest.approx(whole["mse"] - whole["teacher_forced_mse"])
    for figure in ("learning_curves", "forecasts", "error_by_step", "attention"):
        assert (run.folder / f"{figure}.png").stat().st_size > 10_000
    assert all(isinstance(value, float) for value in whole.values())

    first_home = run.folder.parents[2]
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "other"))
    record_epoch = labkit.Run.record_epoch

    def interrupted(run, epoch, *rest):
        record_epoch(run, epoch, *rest)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(labkit.Run, "record_epoch", interrupted)
        with pytest.raises(SystemExit, match="130"):
            seq2seq_attention.main(arguments)
    resumed = seq2seq_attention.main([*arguments, "--resume"])
    for name, value in whole.items():
        if "seconds" not in name:
            assert resumed[name] == value, name

    monkeypatch.setenv("LABKIT_HOME", str(first_home))
    examined = evaluate.main([])
    for name in ("mse", "mae", "coverage", "interval_score", "attention_span", "floor_ridge"):
        assert examined[name] == whole[name], name
    assert examined["mse_synthetic"] == pytest.approx(whole["mse"], rel=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--series", "etth1", "--horizon", "192"],
        pytest.param(["--series", "monthly", "--decoder", "forced"], marks=pytest.mark.slow),
        pytest.param(["--series", "etth1-ot", "--decoder", "scheduled"], marks=pytest.mark.slow),
    ],
)
def test_every_series_in_seconds(arguments, capsys):
    metrics = seq2seq_attention.main([*arguments, "--smoke", "--data", "sample"])
    printed = capsys.readouterr().out
    assert all(isinstance(value, float) for value in metrics.values())
    assert np.isfinite(list(metrics.values())).all()
    assert "floor, ridge" in printed
    assert "published" not in printed  # the sample's figures are no ETTh1 figures
    assert ("teacher_forced_mse" in metrics) == ("--decoder" in arguments)
    assert ("air_passengers_mse" in metrics) == ("monthly" in arguments)
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(["--data", "real"]) if "monthly" not in arguments else labkit.parse(
            Config, ["--horizon", "0"]
        )


def test_the_future_cannot_change_a_forecast():
    labkit.prepare(0)
    _, forecaster = build(plan())
    shape = SHAPES["synthetic"]
    changed = WINDOWS.copy()
    changed[..., 12:] = 1e6
    first, _ = free_running(forecaster, Windows(WINDOWS, 12))
    second, _ = free_running(forecaster, Windows(changed, 12))
    np.testing.assert_array_equal(first, second)
    assert isinstance(Series({}, (), 1.0, "", shape), Series)


def test_published_figures_stand_beside_the_same_protocol_only():
    config = Config(series="etth1", horizon=192)
    assert published(config, "real:f18de3ad")["DLinear"] == 0.443
    assert published(config, "sample") == {}
    assert published(Config(series="etth1", horizon=48), "real:f18de3ad") == {}
    assert published(Config(series="etth1-ot", horizon=96), "real:f18de3ad") == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--horizon", "0"], "--horizon must be 1 or more, got 0"),
        (["--series", "etth1", "--horizon", "100", "--data", "sample"], "multiple of 48"),
        (["--horizon", "500"], "choose a smaller --horizon"),
    ],
)
def test_impossible_settings_are_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        seq2seq_attention.main(arguments)
    assert message in capsys.readouterr().err
