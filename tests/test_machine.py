"""What `labkit.prepare` sets beside the seed."""

import tensorflow as tf

import labkit


def test_input_pipelines_are_not_tuned_and_give_the_same():
    labkit.prepare(0)
    labkit.prepare(0)  # twice is as once
    dataset = tf.data.Dataset.range(5).batch(2)
    iterator = iter(dataset)
    assert iterator._dataset.options().autotune.enabled is False
    assert [batch.numpy().tolist() for batch in iterator] == [[0, 1], [2, 3], [4]]
