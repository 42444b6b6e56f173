"""Command lines: quick help, one clear message for a mistake."""

from types import SimpleNamespace

import pytest

from labkit import at_least, parse
from tp1_mnist_api.train_model import Config

LAB = "tp1_mnist_api"
SCRIPTS = [
    f"{LAB}/{n}.py" for n in ("train_model", "evaluate", "evaluate_pictures", "app", "client")
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_no_heavy_library(python, script):
    done = python("-X", "importtime", script, "--help")
    assert done.returncode == 0
    assert "--model" in done.stdout or "--run" in done.stdout or "--url" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"tensorflow", "keras", "mlflow", "matplotlib.pyplot", "sklearn", "scipy"}


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
