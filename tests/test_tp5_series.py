"""TP5's series: no leak between parts, the standard protocol, floors against other code."""

import numpy as np
import pytest

import labkit
from tp5_seq2seq_attention import etth1, floors, series
from tp5_seq2seq_attention.series import SHAPES, load_series, time_borders

RNG = np.random.default_rng(0)


def numbered(name: str, horizon: int):
    """The windows of `name` cut from the numbers of its steps: a point shows where it is from."""
    steps = np.arange(etth1.HOURS if name != "synthetic" else series.SYNTHETIC_STEPS)
    shape = series.replace(SHAPES[name], horizon=horizon)
    return {
        part: series.cut(steps[first:last, None], shape.look_back, horizon)
        for part, (first, last) in time_borders(name, len(steps), shape).items()
    }, shape


# --- Parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "horizon"),
    [("synthetic", 10), ("synthetic", 20), ("etth1", 96), ("etth1", 720), ("etth1-ot", 336)],
)
def test_no_window_of_validation_or_test_shares_a_point_with_training(name, horizon):
    parts, shape = numbered(name, horizon)
    points = {part: set(np.unique(found.windows).tolist()) for part, found in parts.items()}
    assert not points["train"] & points["validation"]
    assert not points["train"] & points["test"]
    targets = {part: set(np.unique(found.future).tolist()) for part, found in parts.items()}
    assert not targets["validation"] & targets["test"]
    assert max(points["train"]) < min(points["validation"]) < max(points["validation"])
    if name == "synthetic":  # a window lies between
        window = shape.look_back + horizon
        assert not points["validation"] & points["test"]
        assert min(points["validation"]) - max(points["train"]) > window
        assert min(points["test"]) - max(points["validation"]) > window


@pytest.mark.parametrize(
    ("horizon", "windows"), [(96, 2785), (192, 2689), (336, 2545), (720, 2161)]
)
def test_every_test_window_of_the_standard_protocol(horizon, windows):
    parts, _ = numbered("etth1", horizon)
    test = parts["test"]
    assert len(test.windows) == windows
    assert test.future[0, 0, 0] == 16 * 720  # the first hour of the last four months
    assert test.future[-1, 0, -1] == 20 * 720 - 1
    assert len(parts["train"].windows) == 8640 - 720 - horizon + 1


def test_no_shop_is_in_two_parts():
    found = load_series("monthly", smoke=True)
    rows = {
        part: windows.windows.reshape(len(windows.windows), -1)
        for part, windows in found.parts.items()
    }
    firsts = {part: {row[:36].tobytes() for row in values} for part, values in rows.items()}
    assert sum(map(len, firsts.values())) == len(set.union(*firsts.values()))
    for windows in found.parts.values():
        np.testing.assert_allclose(windows.history.mean(axis=-1), 0, atol=1e-4)
        np.testing.assert_allclose(windows.history.std(axis=-1), 1, atol=1e-4)


def test_the_scale_is_the_training_parts():
    found = load_series("synthetic")
    values = series.synthetic()
    mean, deviation = values[:1400].mean(), values[:1400].std()
    train = found.parts["train"].windows
    np.testing.assert_allclose(train[0, 0] * deviation + mean, values[:60, 0], rtol=1e-4, atol=1e-6)
    assert found.unit == pytest.approx(deviation)
    later = series.synthetic()
    later[1400:] += 100  # what comes later moves nothing in the training part
    patched = pytest.MonkeyPatch()
    with patched.context() as context:
        context.setattr(series, "synthetic", lambda draw=0: later)
        np.testing.assert_array_equal(load_series("synthetic").parts["train"].windows, train)


def test_the_synthetic_series_is_the_handouts():
    t = 123
    expected = 0.5 * np.sin(t / 20) + 0.3 * np.sin(t / 10) + 0.2 * t / 2000
    assert series.synthetic_signal()[t] == pytest.approx(expected)
    noise = series.synthetic()[:, 0] - series.synthetic_signal()
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    for seeds in series.DRAWS.values():
        draws = np.stack([series.synthetic(draw)[:, 0] for draw in seeds])
        noise = draws - series.synthetic_signal()
        assert np.mean(noise**2) == pytest.approx(0.01, rel=5 * (2 / noise.size) ** 0.5)
    assert not set(series.DRAWS["test"]) & {0, *series.DRAWS["validation"]}
    np.testing.assert_array_equal(series.synthetic(3), series.synthetic(3))
    assert not np.array_equal(series.synthetic(0), series.synthetic(1))


def test_windows_cost_no_memory():
    found = load_series("synthetic").parts["train"]
    assert found.windows.base is not None
    np.testing.assert_array_equal(found.history[1, 0, :-1], found.history[0, 0, 1:])
    np.testing.assert_array_equal(found.future[0, 0], found.history[10, 0, -10:])


def test_airline_passengers_have_twelve_years():
    years = np.reshape(series.AIR_PASSENGERS, (12, 12))
    assert (np.diff(years.sum(axis=1)) > 0).all()  # more every year
    assert (years.argmax(axis=1) % 12 >= 6).all()  # most in July or August
    assert (years[0, 0], years[-1, -1], years.max()) == (112, 432, 622)


@pytest.mark.parametrize(
    ("name", "horizon", "message"),
    [("etth1", 100, "multiple of 48"), ("synthetic", 400, "smaller --horizon")],
)
def test_impossible_horizons_are_named(name, horizon, message):
    with pytest.raises(ValueError, match=message):
        load_series(name, horizon, "sample")


# --- The file ------------------------------------------------------------------------------------


def test_without_the_file_auto_warns_and_real_stops(capsys):
    values, source = etth1.load_etth1("auto")
    assert source == "sample"
    assert values.shape == (20 * 720, 7)
    assert "LABKIT_DATA" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        etth1.load_etth1("real")
    np.testing.assert_array_equal(etth1.sample_hours(), values)


def test_a_damaged_file_is_named_and_not_used(tmp_path, monkeypatch, capsys):
    (tmp_path / "ETTh1.csv").write_text("date,HUFL\n2016-07-01 00:00:00,1\n")
    monkeypatch.setenv("LABKIT_DATA", str(tmp_path))
    assert etth1.load_etth1("auto")[1] == "sample"
    message = capsys.readouterr().err
    assert "damaged" in message
    assert "ETTh1.csv: SHA-256 is" in message


@pytest.mark.realdata
def test_the_official_file(real_data):
    values, source = etth1.load_etth1("real")
    assert source == "real:f18de3ad"
    assert values.shape == (17420, 7)
    np.testing.assert_allclose(values[0, [0, 6]], [5.827, 30.531], rtol=1e-6)
    np.testing.assert_allclose(values[-1, 6], 9.567, rtol=1e-6)


@pytest.mark.realdata
def test_floors_on_etth1_are_the_published_ones(real_data):
    """Persistence as in DLinear's table, ridge as measured by independent code: same protocol."""
    found = load_series("etth1", data="real")
    future = found.parts["test"].future
    forecasts = floors.floor_forecasts(found.parts, 24, anchored=True)
    errors = forecasts["persistence"] - future
    assert np.mean(errors**2) == pytest.approx(1.295, abs=2e-3)
    assert np.mean(np.abs(errors)) == pytest.approx(0.713, abs=2e-3)
    assert floors.squared_error(forecasts["ridge_336"], future) == pytest.approx(0.370, abs=2e-3)


# --- Floors --------------------------------------------------------------------------------------

HISTORY = RNG.standard_normal((40, 2, 12)).astype(np.float32)


def test_naive_forecasts_against_loops():
    for horizon, period in ((5, 3), (7, 4), (12, 12)):
        last = floors.persistence(HISTORY, horizon)
        season = floors.seasonal_naive(HISTORY, horizon, period)
        assert last.shape == season.shape == (40, 2, horizon)
        for step in range(horizon):
            np.testing.assert_array_equal(last[..., step], HISTORY[..., -1])
            back = step
            while back >= period:
                back -= period
            np.testing.assert_array_equal(season[..., step], HISTORY[..., 12 - period + back])


def test_long_histories_have_a_second_ridge_floor(monkeypatch):
    """Fitted to the last steps alone: what comes before them makes no difference."""
    monkeypatch.setattr(floors, "SHORTER", 5)
    values = RNG.standard_normal((60, 2, 12)).astype(np.float32)
    changed = values.copy()
    changed[..., :3] += RNG.standard_normal((60, 2, 3)).astype(np.float32)

    def forecasts(given: np.ndarray, look_back: int) -> dict[str, np.ndarray]:
        windows = series.Windows(given, look_back)
        parts = {part: windows for part in ("train", "validation", "test")}
        return floors.floor_forecasts(parts, 2, anchored=True)

    one, other, short = forecasts(values, 8), forecasts(changed, 8), forecasts(values[..., 3:], 5)
    np.testing.assert_array_equal(one["ridge_5"], other["ridge_5"])
    assert np.abs(one["ridge"] - other["ridge"]).max() > 1e-3
    assert "ridge_5" not in short
    np.testing.assert_allclose(one["ridge_5"], short["ridge"], atol=1e-6)


@pytest.mark.parametrize("anchored", [True, False])
def test_ridge_against_scikit_learn(anchored):
    from sklearn.linear_model import Ridge

    future = RNG.standard_normal((40, 2, 3)).astype(np.float32)
    fitted = floors.fit_ridges(HISTORY, future, anchored)
    last = HISTORY[..., -1:] * anchored
    for penalty in (0.1, 10.0):
        other = Ridge(alpha=penalty, fit_intercept=False)
        other.fit((HISTORY - last).reshape(-1, 12), (future - last).reshape(-1, 3))
        expected = other.predict((HISTORY - last).reshape(-1, 12)).reshape(40, 2, 3) + last
        np.testing.assert_allclose(fitted[penalty](HISTORY), expected, rtol=1e-3, atol=1e-4)


def test_an_anchored_ridge_is_right_at_any_level():
    time = np.arange(60.0)
    values = np.stack([np.sin(time[i : i + 30] / 3) for i in range(30)])[:, None].astype(np.float32)
    fitted = floors.fit_ridges(values[..., :20], values[..., 20:], anchored=True)[0.01]
    np.testing.assert_allclose(
        fitted(values[..., :20] + 5), fitted(values[..., :20]) + 5, rtol=1e-4, atol=1e-4
    )


def test_floors_are_chosen_on_validation_alone():
    found = load_series("synthetic")
    ridge, _ = floors.choose_ridge(found.parts["train"], found.parts["validation"], False)
    changed = dict(found.parts)
    changed["test"] = series.Windows(found.parts["test"].windows * 3 + 1, 50)
    forecasts = floors.floor_forecasts(changed, None, anchored=False)
    np.testing.assert_allclose(
        forecasts["ridge"], ridge(changed["test"].history), rtol=1e-5, atol=1e-6
    )
    lag = floors.choose_period(found.parts["validation"])
    np.testing.assert_array_equal(
        forecasts["seasonal_naive"], floors.seasonal_naive(changed["test"].history, 10, lag)
    )
    errors = [
        floors.squared_error(
            floors.seasonal_naive(found.parts["validation"].history, 10, each),
            found.parts["validation"].future,
        )
        for each in (lag, 2, 25, 50)
    ]
    assert errors[0] == min(errors)


def test_published_figures_have_every_horizon():
    assert all(len(row) == len(floors.HORIZONS) for row in floors.PUBLISHED.values())
    assert labkit.DataError
