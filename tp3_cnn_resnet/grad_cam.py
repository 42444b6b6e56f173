"""Where did the network look? Grad-CAM, and the first layer's kernels and maps.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (ICCV 2017). A heat map says which places would raise a class's score, to first
order; it doesn't say why, and a sensible heat map is no proof of a sensible reason.
"""

from __future__ import annotations

import numpy as np

import labkit
from labkit import figures
from tp3_cnn_resnet.models import to_input

keras = labkit.lazy("keras")
tf = labkit.lazy("tensorflow")


def grad_cam(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, layer_name: str
) -> np.ndarray:
    """Heat maps (n, h, w) in 0..1 of `classes` (n,) for `images` (n, H, W, 3), of the layer's size.

    Equations 1 and 2 of the paper: a channel weighs as much as the class's score before the
    softmax grows with it, on average over all places; the weighted sum of channels, cut at zero,
    is the map. Each map is divided by its maximum; one that is zero everywhere stays so.
    """
    maps, gradients = maps_and_gradients(model, images, classes, layer_name)
    weights = gradients.mean(axis=(1, 2))  # (n, channels), equation 1
    return to_heat(np.einsum("nhwc,nc->nhw", maps, weights))  # equation 2


def hires_cam(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, layer_name: str
) -> np.ndarray:
    """The same without the average over places: each value of a map with its own gradient.

    HiResCAM (Draelos and Carin, arXiv 2011.08891, section 4). Behind maximum pooling only a few
    places have a gradient at all, and Grad-CAM's average spreads it over the others.
    """
    maps, gradients = maps_and_gradients(model, images, classes, layer_name)
    return to_heat((maps * gradients).sum(axis=-1))


def maps_and_gradients(
    model: keras.Model, images: np.ndarray, classes: np.ndarray, layer_name: str
) -> tuple[np.ndarray, np.ndarray]:
    """A layer's maps (n, h, w, channels) and the gradient of each class's score to them."""
    inside = keras.Model(model.input, [model.get_layer(layer_name).output, class_scores(model)])
    # Gradients are the one thing that keras.ops leaves to the backend: this is TensorFlow's form.
    with tf.GradientTape() as tape:
        inputs = tf.convert_to_tensor(images, "float32")
        tape.watch(inputs)
        maps, scores = inside(inputs, training=False)  # (n, h, w, channels), (n, classes)
        wanted = tf.reduce_sum(tf.gather(scores, classes, batch_dims=1))
    return maps.numpy(), tape.gradient(wanted, maps).numpy()


def to_heat(evidence: np.ndarray) -> np.ndarray:
    """`evidence` (n, h, w), cut at zero and divided by its maximum, image by image."""
    heat = np.maximum(evidence, 0)
    highest = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(highest > 0, highest, 1)


def class_scores(model: keras.Model) -> keras.KerasTensor:
    """The model's output before its softmax, be that a layer or the last layer's activation.

    Raises `ValueError` for a model that ends otherwise.
    """
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return last.input
    if getattr(last, "activation", None) is not keras.activations.softmax:
        raise ValueError(f"{model.name} doesn't end with a softmax")
    linear = type(last).from_config(last.get_config() | {"activation": "linear", "name": "scores"})
    scores = linear(last.input)
    linear.set_weights(last.get_weights())
    return scores


def feature_layers(model: keras.Model, image: np.ndarray) -> dict[str, int]:
    """The last layer at each resolution and the side of its maps, from fine to coarse.

    `image` is (h, w, 3); pooling layers don't count, as they only repeat what is before them.
    """
    spatial = [layer for layer in model.layers[1:] if len(layer.output.shape) == 4]
    maps = keras.Model(model.input, [layer.output for layer in spatial])(image[None])
    names = {
        found.shape[1]: layer.name
        for layer, found in zip(spatial, maps, strict=True)
        if "pooling" not in layer.name
    }
    return {names[side]: side for side in sorted(names, reverse=True)}


def heat_figure(
    images: np.ndarray, titles: list[str], heats: dict[str, np.ndarray]
) -> figures.Figure:
    """A column for each of `images` (n, H, W, 3): the image, below it one row for each heat map.

    `heats` maps a row's name to its (n, h, w) maps, which are enlarged smoothly.
    """
    count, side = len(images), images.shape[1]
    rows = 1 + len(heats)
    figure, axes = figures.subplots(rows, count, size=(1.25 * count + 0.6, 1.3 * rows + 0.5))
    axes = axes.reshape(rows, count)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
    for column in range(count):
        axes[0, column].imshow(images[column])
        axes[0, column].set_title(titles[column], fontsize=8, fontweight="normal")
        for axis, maps in zip(axes[1:, column], heats.values(), strict=True):
            axis.imshow(images[column].mean(axis=-1), cmap="gray", vmin=0, vmax=255)
            axis.imshow(
                maps[column], cmap="inferno", alpha=0.6, vmin=0, vmax=1,
                interpolation="bilinear", extent=(-0.5, side - 0.5, side - 0.5, -0.5),
            )  # fmt: skip
    for axis, name in zip(axes[:, 0], ["image", *heats], strict=True):
        axis.set_ylabel(name, fontsize=8)
    return figure


def first_layer(model: keras.Model, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First convolution: kernels (k, k, 3, channels) and maps (h, w, channels) of `image`.

    `image` is (H, W, 3) in 0..1; the maps are taken behind the first activation.
    """
    kernels = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    activated = next(
        layer
        for layer in model.layers
        if getattr(layer, "activation", keras.activations.linear) is not keras.activations.linear
    )
    maps = keras.Model(model.input, activated.output)(image[None])[0]
    return kernels.get_weights()[0], keras.ops.convert_to_numpy(maps)


def first_layer_figure(model: keras.Model, image: np.ndarray) -> figures.Figure:
    """The channels that answer `image` (H, W, 3) uint8 most, 16 at most: kernel above map."""
    kernels, maps = first_layer(model, to_input(image))
    chosen = np.argsort(-maps.mean(axis=(0, 1)), kind="stable")[:16]
    columns = 8
    figure, axes = figures.subplots(4, columns + 2, size=(12, 5.6))
    for axis in axes.flat:
        axis.axis("off")
    grid = axes[0, 0].get_gridspec()
    shown = figure.add_subplot(grid[1:3, :2])
    shown.imshow(image)
    shown.axis("off")
    shown.set_title("image")
    for place, channel in enumerate(chosen):
        row, column = 2 * (place // columns), 2 + place % columns
        kernel = kernels[..., channel]
        axes[row, column].imshow(0.5 + kernel / (2 * np.abs(kernel).max() + 1e-12))
        axes[row, column].set_title(f"kernel {channel}", fontsize=8, fontweight="normal")
        axes[row + 1, column].imshow(maps[..., channel], cmap="gray")
    figure.suptitle(
        f"First convolution: {len(chosen)} of its {maps.shape[-1]} kernels (grey: zero), each "
        "above its map of the image",
        fontsize=10,
    )
    return figure
