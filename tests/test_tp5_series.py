"""TP5's series: no leak between parts, the standard protocol, floors against other code."""

from dataclasses import replace

import numpy as np
import pytest

import labkit
from tp5_seq2seq_attention import etth1, floors, series
from tp5_seq2seq_attention.series import load

RNG = np.random.default_rng(0)


@pytest.fixture
def numbered(monkeypatch):
    """Loads a series whose values are the numbers of its steps: a point shows where it is from."""

    def load_numbered(name: str, horizon: int) -> dict[str, labkit.Part]:
        count = series.SYNTHETIC_STEPS if name == "synthetic" else etth1.HOURS
        steps = np.repeat(np.arange(count, dtype=float)[:, None], 7, axis=1)
        monkeypatch.setattr(series, "synthetic", lambda draw=0: steps[:, :1])
        monkeypatch.setattr(series, "load_etth1", lambda choice: (steps, "sample"))
        data = load("auto", False, name, horizon)
        known = steps[: 1400 if name == "synthetic" else 8640, 0]

        def numbers(values: np.ndarray) -> np.ndarray:
            return np.rint(values[:, :1] * known.std() + known.mean()).astype(int)

        return {
            part: labkit.Part(numbers(getattr(data, part).x), numbers(getattr(data, part).y))
            for part in ("train", "validation", "test")
        }

    return load_numbered


# --- Parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "horizon"), [("synthetic", 10), ("synthetic", 20), ("etth1-ot", 96), ("etth1", 720)]
)
def test_nothing_is_forecast_in_two_parts(name, horizon, numbered):
    parts = numbered(name, horizon)
    points = {
        part: set(np.unique(found.x).tolist()) | set(np.unique(found.y).tolist())
        for part, found in parts.items()
    }
    targets = {part: set(np.unique(found.y).tolist()) for part, found in parts.items()}
    assert not points["train"] & (targets["validation"] | targets["test"])
    assert not points["validation"] & targets["test"]
    assert max(points["train"]) < min(targets["validation"])
    assert max(targets["validation"]) < min(targets["test"])
    for found in parts.values():  # the future begins where the history ends
        np.testing.assert_array_equal(found.y[..., 0], found.x[..., -1] + 1)
    if name == "synthetic":  # a window lies between
        window = 50 + horizon
        assert not points["train"] & points["validation"]
        assert not points["validation"] & points["test"]
        assert min(points["validation"]) - max(points["train"]) > window
        assert min(points["test"]) - max(points["validation"]) > window


@pytest.mark.parametrize(("horizon", "windows"), [(96, 2785), (720, 2161)])
def test_every_test_window_of_the_standard_protocol(horizon, windows, numbered):
    parts = numbered("etth1-ot", horizon)
    test = parts["test"]
    assert len(test) == windows
    assert test.y[0, 0, 0] == 16 * 720  # the first hour of the last four months
    assert test.y[-1, 0, -1] == 20 * 720 - 1
    assert len(parts["train"]) == 8640 - 720 - horizon + 1
    assert len(parts["validation"]) == 2880 - horizon + 1
    assert parts["validation"].y[0, 0, 0] == 12 * 720


def test_no_shop_is_in_two_parts():
    data = load("auto", False, "monthly")
    parts = (data.train, data.validation, data.test, data.air_passengers)
    firsts = [{row.tobytes() for row in np.ascontiguousarray(part.x[:, 0])} for part in parts]
    assert sum(map(len, firsts)) == len(set.union(*firsts)) == sum(map(len, parts))
    assert [len(part) for part in parts] == [210 * 49, 45 * 49, 45 * 49, 144 - 47]
    for part in parts:
        np.testing.assert_allclose(part.x.mean(axis=-1), 0, atol=1e-4)
        np.testing.assert_allclose(part.x.std(axis=-1), 1, atol=1e-4)


def test_the_scale_is_the_training_parts(monkeypatch):
    data = load("auto", False, "synthetic")
    values = series.synthetic()
    mean, deviation = values[:1400].mean(), values[:1400].std()
    first = np.concatenate([data.train.x[0, 0], data.train.y[0, 0]])
    np.testing.assert_allclose(first * deviation + mean, values[:60, 0], rtol=1e-4, atol=1e-6)
    assert data.unit == pytest.approx(deviation)
    later = series.synthetic()
    later[1400:] += 100  # what comes later moves nothing in the training part
    monkeypatch.setattr(series, "synthetic", lambda draw=0: later)
    np.testing.assert_array_equal(load("auto", False, "synthetic").train.x, data.train.x)
    hours = etth1.sample_hours()
    changed = np.concatenate([hours[:8640], 3 * hours[8640:]])
    monkeypatch.setattr(series, "load_etth1", lambda choice: (hours, "sample"))
    before = load("sample", True, "etth1").train
    monkeypatch.setattr(series, "load_etth1", lambda choice: (changed, "sample"))
    np.testing.assert_array_equal(load("sample", True, "etth1").train.x, before.x)
    assert before.x.shape == (64, 7, 720)


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
    train = load("auto", False, "synthetic").train
    assert np.shares_memory(train.x, train.y)
    assert train.x.strides[0] == train.x.strides[-1]  # the next window begins one step later
    np.testing.assert_array_equal(train.x[1, 0, :-1], train.x[0, 0, 1:])
    np.testing.assert_array_equal(train.y[0, 0], train.x[10, 0, -10:])


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
        load("sample", False, name, horizon)


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
    assert "ETTh1.csv: its sha256 is" in message


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
    data = load("real", False, "etth1")
    found, _ = floors.fit_floors(data)
    errors = found["persistence"](data.test.x) - data.test.y
    assert np.mean(errors**2) == pytest.approx(1.295, abs=2e-3)
    assert np.mean(np.abs(errors)) == pytest.approx(0.713, abs=2e-3)
    assert floors.squared_error(found["ridge_336"](data.test.x), data.test.y) == pytest.approx(
        0.370, abs=2e-3
    )


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


def series_of(x: np.ndarray, y: np.ndarray, period: int | None = 2) -> series.Series:
    """`x` and `y` as training, validation and test."""
    part = labkit.Part(x, y)
    shape = series.Shape(x.shape[-1], y.shape[-1], segment=1, period=period)
    return series.Series("sample", part, part, part, ("one", "two"), shape)


def test_long_histories_have_a_second_ridge_floor(monkeypatch):
    """Fitted to the last steps alone, and to every window that such a history leaves room for."""
    monkeypatch.setattr(floors, "SHORTER", 5)
    values = RNG.standard_normal((40, 2)).astype(np.float32)
    shape = series.Shape(8, 4, segment=1, period=2)
    part = series.cut([values], shape)
    found, chosen = floors.fit_floors(series_of(part.x, part.y))
    windows = [values[start : start + 9].T for start in range(40 - 9 + 1)]
    x, y = np.split(np.stack(windows), [5], axis=-1)
    penalty = chosen["chosen_penalty_of_ridge_5"]
    expected = floors.fit_ridges(x, y, anchored=True)[penalty]
    np.testing.assert_allclose(found["ridge_5"](part.x), expected(part.x), atol=1e-6)
    changed = part.x.copy()
    changed[..., :3] += 1
    np.testing.assert_array_equal(found["ridge_5"](part.x), found["ridge_5"](changed))
    assert np.abs(found["ridge"](part.x) - found["ridge"](changed)).max() > 1e-3
    short, _ = floors.fit_floors(series_of(part.x[..., 3:], part.y))
    assert "ridge_5" not in short


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
    """The lag and the penalty are the best of all on validation, whatever the test part holds."""
    x = RNG.standard_normal((80, 2, 9)).astype(np.float32)
    y = x[..., [2, 3, 4]]  # it repeats after seven steps
    data = series_of(x[:20], y[:20], period=None)
    weaker = (3 * y[20:40] + x[20:40, :, -1:]) / 4  # a larger penalty is right there
    data = replace(data, validation=labkit.Part(x[20:40], weaker), test=labkit.Part(x[40:], y[40:]))
    found, chosen = floors.fit_floors(data)
    assert chosen["chosen_lag"] == 7
    fitted = floors.fit_ridges(data.train.x, data.train.y, anchored=True)
    errors = {
        part: {
            penalty: floors.squared_error(ridge(getattr(data, part).x), getattr(data, part).y)
            for penalty, ridge in fitted.items()
        }
        for part in ("train", "validation", "test")
    }
    best = {part: min(values, key=values.get) for part, values in errors.items()}
    assert chosen["chosen_penalty_of_ridge"] == best["validation"]
    assert best["validation"] not in (best["train"], best["test"])
    np.testing.assert_array_equal(
        found["ridge"](data.test.x), fitted[best["validation"]](data.test.x)
    )


def test_published_figures_stand_beside_the_same_protocol_only():
    def of(name: str, horizon: int, source: str, smoke: bool = False) -> dict[str, float]:
        found = load("sample", True, name, horizon)
        return floors.published(replace(found, source=source), smoke)

    assert of("etth1", 192, "real:f18de3ad")["DLinear (336)"] == 0.443
    assert of("etth1", 192, "sample") == {}
    assert of("etth1", 192, "real:f18de3ad", smoke=True) == {}
    assert of("etth1", 48, "real:f18de3ad") == {}
    assert of("etth1-ot", 96, "real:f18de3ad") == {}
    assert all(len(row) == len(floors.HORIZONS) for row in floors.PUBLISHED.values())
