"""Batches that `fit()` sees: every sample once an epoch, the same after a resume."""

import keras
import numpy as np

from labkit.batches import Batches


class Recorder(keras.Model):
    """Keeps the batches it is trained on instead of learning from them."""

    def train_step(self, data):
        self.seen.extend(np.asarray(data[0]).ravel().astype(int).tolist())
        return {"loss": 0.0}


def epochs_seen(first_epoch: int, epochs: int) -> list[list[int]]:
    inputs = keras.Input((1,))
    model = Recorder(inputs, keras.layers.Dense(1)(inputs))
    model.seen = []
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.arange(50, dtype=np.float32)[:, None]
    batches = Batches(x, x, 16, seed=3, first_epoch=first_epoch)
    model.fit(batches, epochs=epochs, initial_epoch=first_epoch, shuffle=False, verbose=0)
    return np.reshape(model.seen, (epochs - first_epoch, 50)).tolist()


def test_each_epoch_has_each_sample_once_in_a_new_order():
    seen = epochs_seen(0, 3)
    assert all(sorted(epoch) == list(range(50)) for epoch in seen)
    assert seen[0] != seen[1] != seen[2]


def test_resumed_epochs_repeat_the_order():
    assert epochs_seen(2, 4) == epochs_seen(0, 4)[2:]


def test_transform_is_keyed_by_seed_epoch_and_batch():
    def noise(x, y, rng):
        return x + rng.normal(size=x.shape), y

    x = np.zeros((20, 3), np.float32)
    first, second = (Batches(x, x, 8, seed=1, transform=noise) for _ in range(2))
    np.testing.assert_array_equal(first[1][0], second[1][0])
    assert not np.array_equal(first[0][0], first[1][0])
    second.on_epoch_end()
    assert not np.array_equal(first[1][0], second[1][0])
    assert len(first) == 3
    assert len(first[2][0]) == 4  # the last, smaller batch is kept


def test_each_seed_has_its_own_order():
    x = np.arange(50)
    orders = [tuple(Batches(x, x, 8, seed).order) for seed in range(5)]
    assert len(set(orders)) == 5


def test_transform_moves_inputs_and_targets_together():
    def turned(x, y, rng):
        sign = rng.choice([-1, 1])
        return sign * x, sign * y

    x = np.arange(1.0, 21.0)
    batches = Batches(x, 10 * x, 4, seed=0, transform=turned)
    pairs = [batches[index] for index in range(len(batches))]
    assert all((y == 10 * x).all() for x, y in pairs)
    assert {np.sign(x[0]) for x, _ in pairs} == {-1, 1}


def test_draw_says_which_examples_an_epoch_has():
    def halves(rng):
        return rng.permutation(20)[:10]

    x = np.arange(20)
    batches = Batches(x, x, 4, seed=0, draw=halves)
    assert len(batches) == 3
    first = np.concatenate([batches[index][0] for index in range(3)])
    np.testing.assert_array_equal(first, batches.order)
    batches.on_epoch_end()
    assert set(batches.order) != set(first)
    np.testing.assert_array_equal(batches.order, Batches(x, x, 4, 0, 1, draw=halves).order)
