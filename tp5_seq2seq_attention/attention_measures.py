"""What is measured of a network that may have attention, on sentences whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tp5_seq2seq_attention.grammar import Sentences

if TYPE_CHECKING:
    import keras


def score(model: keras.Model, part: Sentences) -> dict[str, float]:
    """Accuracy; with attention its recall, entropy in nats and largest weight on padding.

    `attention_recall` is the weight on the deciding words, the mean over sentences; uniform
    attention has `uniform_recall`.
    """
    found = model.predict(part.x, batch_size=500, verbose=0)
    is_word = part.x > 0
    metrics = {
        "accuracy": np.mean(found["label"].argmax(axis=1) == part.y),
        "uniform_recall": (part.deciding.sum(axis=1) / is_word.sum(axis=1)).mean(),
    }
    if "weights" in found:
        weights = found["weights"].astype(np.float64)
        metrics["attention_recall"] = (weights * part.deciding).sum(axis=1).mean()
        logarithms = np.log(np.maximum(weights, 1e-12))
        metrics["attention_entropy"] = -(weights * logarithms).sum(axis=1).mean()
        metrics["weight_on_padding"] = weights[~is_word].max(initial=0.0)
    return {name: float(value) for name, value in metrics.items()}
