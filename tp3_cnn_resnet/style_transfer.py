"""What does a convolutional network know about an image's manner?

Its deep features say what is where; the correlations of its features say how it is painted. So one
image is repainted in the manner of another, by optimising its pixels (Gatys et al.).

    python tp3_cnn_resnet/style_transfer.py                                   # our two images
    python tp3_cnn_resnet/style_transfer.py --content a.jpg --style b.jpg     # yours
    python tp3_cnn_resnet/style_transfer.py --size 512 --steps 400            # finer, slower
    python tp3_cnn_resnet/style_transfer.py --data sample                     # nothing to download
    python tp3_cnn_resnet/style_transfer.py --smoke                           # once, in seconds

The network is ImageNet's VGG16 where its weights can be had, and else a small one of our own,
trained on CIFAR-10; each output says which. README.md has times and figures. Add --resume to go on
after Ctrl-C or a crash.

References: Gatys, Ecker and Bethge, "Image Style Transfer Using Convolutional Neural Networks"
(CVPR 2016), equations 1 to 7; coarse to fine as in Gatys et al., "Controlling Perceptual Factors in
Neural Style Transfer" (CVPR 2017).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

import labkit
from tp3_cnn_resnet import style_pictures as pictures
from tp3_cnn_resnet.style_features import Network, find_network

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
tf = labkit.lazy("tensorflow")

PICTURES = Path(__file__).resolve().parent / "pictures"
LEARNING_RATE = 0.02  # pixels are in 0..1 and Adam's steps about as long as this


@dataclass(frozen=True)
class Config:
    """Settings of one transfer."""

    content: Path = PICTURES / "content.jpg"
    """Image whose objects are kept; any size and format that Pillow reads."""
    style: Path = PICTURES / "style.jpg"
    """Image whose manner is taken."""
    size: int = 256
    """Longest side of the result in pixels, 32 to 1024."""
    steps: int = 200
    """Optimisation steps, 1 or more, shared by up to three sizes from coarse to fine."""
    style_weight: float = 10.0
    """Weight of the style loss, 0 or more; the content loss has weight 1."""
    tv_weight: float = 6.0
    """Weight of the total variation, 0 or more: higher is smoother."""
    weights: str = "auto"
    """File of a feature network (Keras' VGG16 .h5 without top, or .npz), or auto: see --data."""
    panel: Path | None = None
    """Also write content, style and result side by side to this .png or .jpg file."""
    seed: int = 0
    """Seed of the faint noise on the first image."""
    data: labkit.DataChoice = "auto"
    """auto: ImageNet weights or, without them, our CIFAR-10 network; real: ImageNet or an error;
    sample: our network."""
    smoke: bool = False
    """Six steps at 96 pixels, to see that everything runs."""
    resume: bool = False
    """Go on with the last interrupted transfer of the same settings, code and images."""

    def __post_init__(self) -> None:
        """Refuse impossible values, naming field, limit and value."""
        if not pictures.SMALLEST_SIDE <= self.size <= 1024:
            raise ValueError(f"--size must be {pictures.SMALLEST_SIDE} to 1024, got {self.size}")
        labkit.at_least(self, steps=1, style_weight=0, tv_weight=0, seed=0)
        if not (math.isfinite(self.style_weight) and math.isfinite(self.tv_weight)):
            weights = f"--style-weight {self.style_weight} and --tv-weight {self.tv_weight}"
            raise ValueError(f"{weights} must be finite numbers")
        if self.panel and self.panel.suffix not in (".png", ".jpg"):
            raise ValueError(f"--panel must end in .png or .jpg, got {self.panel}")
        if self.panel and not self.panel.absolute().parent.is_dir():
            raise ValueError(f"--panel {self.panel}: its folder does not exist; make it first")


# --- Losses --------------------------------------------------------------------------------------


def create_extractor(network: Network) -> keras.Model:
    """The network with the outputs that are compared: style layers first, the content layer last.

    Usage: `*style_maps, content_map = create_extractor(network)(images)`; images are RGB
    (1, height, width, 3) in 0..1.
    """
    names = [*network.style_layers, network.content_layer]
    return keras.Model(network.model.inputs[0], [network.model.get_layer(n).output for n in names])


def gram(features: keras.KerasTensor) -> keras.KerasTensor:
    """How often each two channels fire together: (1, h, w, C) -> (C, C).

    Equation 3 of Gatys et al., divided by the h·w places, so that images of different sizes can
    be compared. Where something is, the sum forgets; that is why it describes style.
    """
    channels = features.shape[-1]
    flat = keras.ops.reshape(features, (-1, channels))  # (h·w, C)
    places = keras.ops.cast(keras.ops.shape(flat)[0], flat.dtype)
    return keras.ops.matmul(keras.ops.transpose(flat), flat) / places  # (C, C)


def relative_error(found: keras.KerasTensor, wanted: keras.KerasTensor) -> keras.KerasTensor:
    """Squared distance as a share of the target's own square: 0 if equal, 1 for all zeros.

    Gatys et al. divide by the number of entries (equations 1 and 4). Activations differ by orders
    of magnitude between layers and networks; this share is the same for all of them, and one
    default weight serves every network.
    """
    distance = keras.ops.sum(keras.ops.square(found - wanted))
    return distance / (keras.ops.sum(keras.ops.square(wanted)) + 1e-12)


def total_variation(images: keras.KerasTensor) -> keras.KerasTensor:
    """Mean length of the colour gradient: (1, h, w, 3) -> scalar, 0 for one colour, at most 1.42.

    The root of down² + right² is the same for edges of every direction; the sum of the two absolute
    differences, often seen, draws steps along the axes. The root is rounded off near 0, where it
    has no derivative.
    """
    # The last row and column are repeated, so that they have neighbours too.
    padded = keras.ops.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="symmetric")
    down = padded[:, 1:, :-1] - images
    right = padded[:, :-1, 1:] - images
    squares = keras.ops.square(down) + keras.ops.square(right)
    return keras.ops.mean(keras.ops.sqrt(squares + 1e-6)) - 1e-3


def make_losses(
    config: Config, extractor: keras.Model, content: np.ndarray, style: np.ndarray
) -> Callable[[keras.KerasTensor], dict[str, keras.KerasTensor]]:
    """A function from an image to its losses against fixed content and style targets.

    `content` and `style` are (1, h, w, 3) in 0..1 and may differ in size. `loss` is equation 7 of
    Gatys et al. with the total variation added; the others are its parts, unweighted.
    """
    *_, wanted_content = extractor(content)
    *style_maps, _ = extractor(style)
    wanted_grams = [gram(features) for features in style_maps]

    def losses(image: keras.KerasTensor) -> dict[str, keras.KerasTensor]:
        *maps, content_map = extractor(image)
        content_loss = relative_error(content_map, wanted_content)
        errors = [relative_error(gram(f), g) for f, g in zip(maps, wanted_grams, strict=True)]
        style_loss = sum(errors) / len(errors)  # equation 5, all layers alike
        variation = total_variation(image)
        loss = content_loss + config.style_weight * style_loss + config.tv_weight * variation
        return {
            "loss": loss,
            "content_loss": content_loss,
            "style_loss": style_loss,
            "total_variation": variation,
        }

    return losses


# --- Optimisation --------------------------------------------------------------------------------


def begin_size(
    losses: Callable, image: np.ndarray, steps: int
) -> tuple[Callable[[], dict[str, keras.KerasTensor]], keras.Variable, keras.Optimizer]:
    """One step of gradient descent on the pixels, the pixels (1, h, w, 3), and their optimiser.

    The network stays as it is. Gradients are the one thing that `keras.ops` leaves to the backend:
    this is TensorFlow's form.
    """
    pixels = keras.Variable(keras.ops.clip(image, 0, 1), dtype="float32")
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps, alpha=0.1)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build([pixels])

    @tf.function(jit_compile=False)  # a graph, not XLA, which is slower on a CPU
    def step() -> dict[str, keras.KerasTensor]:
        with tf.GradientTape() as tape:
            parts = losses(pixels)
        gradient = tape.gradient(parts["loss"], pixels)
        optimizer.apply([gradient], [pixels])
        pixels.assign(keras.ops.clip(pixels, 0, 1))  # colours that a screen can show
        return parts

    return step, pixels, optimizer


def stylise(
    config: Config, network: Network, content: Image.Image, style: Image.Image, run: labkit.Run
) -> np.ndarray:
    """Optimise from coarse to fine, (1, h, w, 3) in 0..1; the losses go to `run.history`.

    Large shapes of the style are painted where they are small for the network's filters, then
    enlarged and refined. `run` holds the newest image of each size all the time.
    """
    from tqdm import tqdm

    extractor = create_extractor(network)
    pieces = pictures.plan(pictures.shape_at(content, config.size), config.steps)
    shape = pictures.shape_at(content, pieces[0][0])
    rng = np.random.default_rng(config.seed)
    # Start from the content; faint noise gives flat areas something for a stroke to grow from.
    image = pictures.resized(content, *shape) + rng.normal(0, 0.02, (1, *shape, 3))
    if run.first_epoch:  # go on where the last run was stopped
        image, *moments = run.checkpoint.arrays()
    done = sum(count for _, count in pieces[: run.first_epoch])
    bar = tqdm(total=config.steps, initial=done, unit="step", disable=config.smoke)
    for index, (longest, count) in enumerate(pieces[run.first_epoch :], run.first_epoch):
        is_new = index == 0 or longest != pieces[index - 1][0]
        if is_new or index == run.first_epoch:
            shape = pictures.shape_at(content, longest)
            small_style = pictures.resized(style, *pictures.shape_at(style, longest))
            losses = make_losses(config, extractor, pictures.resized(content, *shape), small_style)
            image = keras.ops.image.resize(image, shape, "bicubic")
            steps = sum(each for size, each in pieces if size == longest)
            step, pixels, optimizer = begin_size(losses, image, steps)
            if not is_new:
                for variable, value in zip(optimizer.variables, moments, strict=True):
                    variable.assign(value)
        parts = [step() for _ in range(count)]
        means = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
        image, *state = map(keras.ops.convert_to_numpy, [pixels, *optimizer.variables])
        done += count
        run.record_epoch(index, {"step": done, "size": longest} | means, [image, *state])
        pictures.to_image(image).save(run.folder / f"result_{longest}.png")
        bar.update(count)
        bar.set_postfix({"px": longest} | {n: f"{v:.3g}" for n, v in means.items()})
    bar.close()
    return image


# --- Evaluation, main ----------------------------------------------------------------------------


def examine(
    config: Config, network: Network, content: np.ndarray, style: np.ndarray, result: np.ndarray
) -> dict[str, float]:
    """Losses and distances of the result, beside those of both unchanged images.

    All three are (1, h, w, 3) in 0..1; `style` may differ in size.
    """
    losses = make_losses(config, create_extractor(network), content, style)
    stretched = keras.ops.convert_to_numpy(keras.ops.image.resize(style, content.shape[1:3]))
    metrics = {name: float(value) for name, value in losses(result).items()}
    return metrics | {
        "ssim_content": pictures.ssim(result, content),
        "difference_from_content": float(np.mean(np.abs(result - content))),
        "difference_from_style": float(np.mean(np.abs(result - stretched))),
        "floor_style_loss_of_content": float(losses(content)["style_loss"]),
        "floor_content_loss_of_style": float(losses(stretched)["content_loss"]),
        "floor_ssim_of_style": pictures.ssim(stretched, content),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Read, optimise, measure, save; return the final metrics."""
    config = labkit.parse(Config, argv)
    if config.smoke:
        config = replace(config, size=min(config.size, 96), steps=min(config.steps, 6))
    content = pictures.read_image(config.content, "content", config.size)
    style = pictures.read_image(config.style, "style", config.size)
    labkit.prepare(config.seed)
    network = find_network(config.data, config.weights)
    print(network.description)
    digest = hashlib.sha256(content.tobytes() + style.tobytes()).hexdigest()[:8]
    source = f"{network.source}+pictures:{digest}"
    name = f"{network.name}-adam-gram+content+tv-s{config.seed}"
    with labkit.start_run(__file__, config, source, name) as run:
        if not run.is_finished:
            result = stylise(config, network, content, style, run)
            seconds = run.seconds
            small_content = pictures.resized(content, *result.shape[1:3])
            small_style = pictures.resized(style, *pictures.shape_at(style, config.size))
            metrics = examine(config, network, small_content, small_style, result)
            metrics["largest_rise"] = pictures.largest_rise(run.history)
            metrics["train_seconds"] = seconds
            run.log_metrics(metrics)
            pictures.to_image(result).save(run.folder / "result.png")
            shown = (small_content, small_style, result)
            panel = run.save_figure("panel", pictures.panel_figure(shown, network.label))
            if config.panel:
                with Image.open(panel) as drawn:
                    drawn.convert("RGB").save(config.panel)
            losses = pictures.curves_figure(run.history, config.style_weight, config.tv_weight)
            run.save_figure("losses", losses)
            title = f"{config.content.name} in the manner of {config.style.name}"
            run.save_report(title, f"{network.description}\n\n{pictures.table(metrics)}")
    print(pictures.table(run.metrics))
    return run.metrics


if __name__ == "__main__":
    main()
