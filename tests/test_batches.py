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
    def noise(x, rng):
        return x + rng.normal(size=x.shape)

    x = np.zeros((20, 3), np.float32)
    first, second = (Batches(x, x, 8, seed=1, transform=noise) for _ in range(2))
    np.testing.assert_array_equal(first[1][0], second[1][0])
    assert not np.array_equal(first[0][0], first[1][0])
    second.on_epoch_end()
    assert not np.array_equal(first[1][0], second[1][0])
    assert len(first) == 3
    assert len(first[2][0]) == 4  # the last, smaller batch is kept
