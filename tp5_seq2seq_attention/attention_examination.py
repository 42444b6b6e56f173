"""What happens to a network when words are erased: the test of what its attention explains."""

import json
from dataclasses import replace

import keras
import numpy as np

import labkit
from labkit.comparison import compared
from labkit.machine import home
from labkit.results import markdown_table
from tp5_seq2seq_attention import attention  # noqa: F401  the saved models' layers
from tp5_seq2seq_attention.attention_measures import score
from tp5_seq2seq_attention.grammar import FILLERS, NUMBER, Sentences, load

COLUMNS = {
    "test_accuracy": "accuracy",
    "test_attention_recall": "recall",
    "accuracy_without_deciding": "without the deciding words",
    "accuracy_without_other": "without two others",
    "accuracy_without_most_attended": "without the most attended",
}


def erased(part: Sentences, chosen: np.ndarray, rng: np.random.Generator) -> Sentences:
    """The sentences with the words where `chosen` (n, length) is True replaced by fillers."""
    fillers = rng.choice([NUMBER[word] for word in FILLERS], part.x.shape)
    return replace(part, x=np.where(chosen, fillers, part.x).astype(np.int32))


def most_attended(weights: np.ndarray, count: int) -> np.ndarray:
    """True for the `count` words of each sentence with the largest `weights` (n, length)."""
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    chosen = np.zeros(weights.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen


def examine_network(
    model: keras.Model, part: Sentences, rng: np.random.Generator
) -> dict[str, float]:
    """Test figures, and accuracy when words are erased: deciding, as many others, most attended."""
    metrics = {f"test_{name}": value for name, value in score(model, part).items()}
    others = np.zeros(part.deciding.shape, bool)
    for row, words in enumerate(part.x):
        free = np.flatnonzero((words > 0) & ~part.deciding[row])
        others[row, rng.choice(free, 2, replace=False)] = True
    ways = {"deciding": part.deciding, "other": others}
    if "test_attention_recall" in metrics:
        weights = model.predict(part.x, batch_size=500, verbose=0)["weights"]
        ways["most_attended"] = most_attended(weights, 2)
    for way, chosen in ways.items():
        metrics[f"accuracy_without_{way}"] = score(model, erased(part, chosen, rng))["accuracy"]
    return metrics


def examine(trained: labkit.Run, seed: int, smoke: bool) -> tuple[dict[str, float], str]:
    """Figures of the networks of a comparison's first seed, `<configuration>/<metric>`; a table.

    `seed` is of the fillers.
    """
    metrics, rows = {}, []
    for network, folder in compared(trained)["folders"].items():
        path = home() / "outputs" / folder
        trial = json.loads((path / "state.json").read_text())["config"]
        test = load("auto", smoke or trial["smoke"], trial["task"], trial["length"]).test
        model = labkit.load_model(path / "model.keras")
        found = examine_network(model, test, np.random.default_rng(seed))
        metrics |= {f"{network}/{name}": value for name, value in found.items()}
        rows.append([network, *(f"{found[c]:.3f}" if c in found else "" for c in COLUMNS)])
    return metrics, markdown_table(["test sentences", *COLUMNS.values()], rows)
