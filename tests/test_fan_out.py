"""Many trainings from one function: order, errors, and the same results on Ray."""

import importlib.util
import os

import pytest

from labkit import fan_out


def weight_sum(seed: int) -> dict[str, float]:
    """A small training whose result depends on its seed alone."""
    import keras

    import labkit

    labkit.prepare(seed)
    data = labkit.load_mnist("sample")
    model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.x_train.reshape(-1, 784) / 255, data.y_train, epochs=2, verbose=0)
    return {"sum": float(sum(abs(weights).sum() for weights in model.get_weights()))}


def test_results_come_in_the_order_of_the_trials():
    assert fan_out(lambda trial: trial**2, [3, 1, 2], "off") == [9, 1, 4]


def test_an_error_in_one_trial_is_raised():
    with pytest.raises(ZeroDivisionError):
        fan_out(lambda trial: 1 / trial, [1, 0], "off")


def test_an_address_without_ray_is_one_clear_error(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as leaving:
        fan_out(str, [1], "local")
    assert leaving.value.code == 2
    assert "--ray-address local needs Ray: pip install" in capsys.readouterr().err


def test_ray_gives_the_same_results_as_the_loop(python, home):
    """In a new process: another thread count than Ray's workers have would change last digits."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    code = (
        "from labkit import fan_out; from tests.test_fan_out import weight_sum\n"
        "looped = fan_out(weight_sum, [0, 1, 0], 'off')\n"
        "assert looped[0] == looped[2] != looped[1], looped\n"
        "on_ray = fan_out(weight_sum, [0, 1, 0], 'local')\n"
        "assert looped == on_ray, (looped, on_ray)\n"
        "print('equal')\n"
    )
    finished = python("-c", code, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})
    assert finished.stdout.strip().endswith("equal"), finished.stderr[-2000:]
