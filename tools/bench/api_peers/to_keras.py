"""The served LiteRT file as a Keras model with the same weights, for the original's design.

    python tools/bench/api_peers/to_keras.py mnist.tflite mnist.keras

The export folded batch normalisation into the convolutions. Here the folded weights go back into
the same architecture, and normalisation is set to do no more than what was left of it.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tp1_mnist_api.models import build_compact


def weights_of(path: str) -> list[dict]:
    """Operations of a LiteRT file, in order: kind and constant inputs, layout as in Keras."""
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(path, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    found = []
    for operation in interpreter._get_ops_details():
        kind = operation["op_name"]
        if kind not in ("CONV_2D", "FULLY_CONNECTED", "MUL", "ADD"):
            continue
        values = [interpreter.get_tensor(int(index)) for index in operation["inputs"][1:]]
        if kind == "CONV_2D":
            values[0] = values[0].transpose(1, 2, 3, 0)  # (out, h, w, in) to (h, w, in, out)
        elif kind == "FULLY_CONNECTED":
            values[0] = values[0].T
        found.append({"kind": kind, "values": values})
    return found


def main(source: str, target: str) -> None:
    """Write `target`; raises `RuntimeError` if `source` is another network."""
    import keras

    model = build_compact(0.0)
    operations = weights_of(source)
    kinds = [operation["kind"] for operation in operations]
    if kinds != ["CONV_2D", "CONV_2D", "MUL", "ADD", "CONV_2D", "FULLY_CONNECTED"]:
        raise RuntimeError(f"{source} is not the network `compact`: {kinds}")
    first, second, scale, offset, third, dense = (operation["values"] for operation in operations)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    convolutions[0].set_weights(first)
    convolutions[1].set_weights([second[0]])
    convolutions[2].set_weights([third[0]])
    model.layers[-1].set_weights(dense)
    # y = scale * (x + second[1]) + offset; the last convolution has only its bias left.
    for norm, gamma, beta in (
        (norms[0], scale[0], offset[0] + scale[0] * second[1]),
        (norms[1], np.ones_like(third[1]), third[1]),
    ):
        variance = np.full_like(gamma, 1 - norm.epsilon)
        norm.set_weights([gamma, beta, np.zeros_like(gamma), variance])
    model.save(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
