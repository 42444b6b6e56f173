"""Command lines: one clear message for a mistake; test_contract.py asks every script for help."""

import pickle
from types import SimpleNamespace

import pytest

from labkit import at_least, lazy, parse
from tp1_mnist_api.train_model import Config


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (["--epochs", "0"], ["--epochs", "1", "0"]),
        (["--epochs", "many"], ["epochs", "many"]),
        (["--seed", "-1"], ["--seed", "0", "-1"]),
        (["--model", "transformer"], ["model", "transformer"]),
        (["--epoch", "3"], ["--epoch"]),
    ],
)
def test_mistake_is_one_message_and_exit_code_2(argument, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, argument)
    assert stop.value.code == 2
    printed = "".join(capsys.readouterr())
    assert all(word in printed for word in words)
    assert "Traceback" not in printed


def test_settings_that_differ_from_the_defaults_are_printed(capsys):
    assert parse(Config, ["--seed", "3"]).seed == 3
    assert capsys.readouterr().out == "Settings: seed=3\n"


def test_the_limit_itself_and_what_was_not_given_pass():
    at_least(SimpleNamespace(epochs=None, seed=0, style_weight=0.5), epochs=1, seed=0)
    with pytest.raises(ValueError, match=r"--style-weight must be 1 or more, got 0\.5"):
        at_least(SimpleNamespace(style_weight=0.5), style_weight=1)


def test_a_lazy_module_reaches_another_process():
    module = pickle.loads(pickle.dumps(lazy("json.decoder")))
    assert module.JSONDecoder().decode("[1]") == [1]
