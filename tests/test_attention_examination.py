"""TP5's examination of attention networks: which words are erased, and what of."""

import numpy as np

from tp5_seq2seq_attention import attention_examination as examination
from tp5_seq2seq_attention.grammar import COLOURS, FILLERS, NUMBER, WORDS, draw


class Rule:
    """Knows the task `marked`: it reads the colour after the first star, and looks at both."""

    def predict(self, tokens: np.ndarray, **_) -> dict[str, np.ndarray]:
        stars = tokens == NUMBER["*"]
        first = np.where(stars.any(axis=1), stars.argmax(axis=1), 0)
        colours = tokens[np.arange(len(tokens)), first + 1] - NUMBER[COLOURS[0]]
        weights = np.zeros(tokens.shape)
        weights[np.arange(len(tokens)), first] = weights[np.arange(len(tokens)), first + 1] = 0.5
        known = (colours >= 0) & (colours < len(COLOURS))
        label = np.eye(len(COLOURS) + 1)[np.where(known, colours, len(COLOURS))]
        return {"label": label, "weights": weights}


def test_erasing_words():
    part = draw("marked", 30, 20, [0])
    changed = examination.erased(part, part.deciding, np.random.default_rng(0))
    np.testing.assert_array_equal(changed.x != part.x, part.deciding)
    assert set(np.array(WORDS)[changed.x[part.deciding]]) <= set(FILLERS)
    np.testing.assert_array_equal(changed.y, part.y)
    chosen = examination.most_attended(np.array([[0.1, 0.5, 0.0, 0.4]]), 2)
    np.testing.assert_array_equal(chosen, [[False, True, False, True]])


def test_a_network_that_knows_the_rule_fails_without_the_words_that_decide():
    part = draw("marked", 200, 20, [0])
    found = examination.examine_network(Rule(), part, np.random.default_rng(0))
    assert found["test_accuracy"] == found["test_attention_recall"] == 1
    assert found["accuracy_without_deciding"] < 0.3  # it reads the next star
    assert found["accuracy_without_most_attended"] < 0.3
    assert 0.9 < found["accuracy_without_other"] <= 1
