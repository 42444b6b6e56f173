"""Repaint one image in the manner of another, by optimising its pixels (Gatys et al.).

What does a convolutional network know about an image that is neither its objects nor its colours
alone? Its deep features say what is where; the correlations of its features say how it is painted.

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
from labkit import figures
from labkit.arguments import fail
from tp3_cnn_resnet.style_features import Network, find_network
from tp3_cnn_resnet.style_pictures import read_image, resized, shape_at, ssim, to_image

keras = labkit.lazy("keras")  # TensorFlow loads at the first use, so that --help is immediate
tf = labkit.lazy("tensorflow")

PICTURES = Path(__file__).resolve().parent / "pictures"
SMALLEST_SIDE = 32  # after four poolings 2 pixels are left, the least that can be mirrored
SCALES = 3
STEPS_PER_RECORD = 5
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
        if not SMALLEST_SIDE <= self.size <= 1024:
            raise ValueError(f"--size must be {SMALLEST_SIDE} to 1024, got {self.size}")
        labkit.at_least(self, steps=1, style_weight=0, tv_weight=0, seed=0)
        for name in ("style_weight", "tv_weight"):
            if not math.isfinite(getattr(self, name)):
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} must be a finite number, got {getattr(self, name)}")
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


def plan(sides: tuple[int, int], steps: int) -> list[tuple[int, int]]:
    """Pairs (longest side, steps), each with a few steps, from coarse to fine.

    `sides` are those of the result. Sizes are halved while the shorter side keeps 32 pixels, at
    most to a quarter; they share the steps evenly.
    """
    sizes = [max(sides)]
    while len(sizes) < min(SCALES, steps) and min(sides) // 2 ** len(sizes) >= SMALLEST_SIDE:
        sizes.insert(0, max(sides) // 2 ** len(sizes))
    pieces = []
    for longest, part in zip(sizes, np.array_split(np.arange(steps), len(sizes)), strict=True):
        for start in range(0, len(part), STEPS_PER_RECORD):
            pieces.append((longest, len(part[start : start + STEPS_PER_RECORD])))
    return pieces


def make_step(
    losses: Callable, pixels: keras.Variable, optimizer: keras.Optimizer
) -> Callable[[], dict[str, keras.KerasTensor]]:
    """One step of gradient descent on the pixels; the network stays as it is.

    Gradients are the one thing that `keras.ops` leaves to the backend: this is TensorFlow's form.
    """

    @tf.function(jit_compile=False)  # a graph, not XLA, which is slower on a CPU
    def step() -> dict[str, keras.KerasTensor]:
        with tf.GradientTape() as tape:
            parts = losses(pixels)
        gradient = tape.gradient(parts["loss"], pixels)
        optimizer.apply([gradient], [pixels])
        pixels.assign(keras.ops.clip(pixels, 0, 1))  # colours that a screen can show
        return parts

    return step


def stylise(
    config: Config,
    network: Network,
    content: Image.Image,
    style: Image.Image,
    run: labkit.Run,
) -> np.ndarray:
    """Optimise from coarse to fine, (1, h, w, 3) in 0..1; the losses go to `run.history`.

    Large shapes of the style are painted where they are small for the network's filters, then
    enlarged and refined. `run` holds the newest image of each size all the time.
    """
    from tqdm import tqdm

    extractor = create_extractor(network)
    pieces = plan(shape_at(content, config.size), config.steps)
    height, width = shape_at(content, pieces[0][0])
    rng = np.random.default_rng(config.seed)
    # Start from the content; faint noise gives flat areas something for a stroke to grow from.
    image = resized(content, height, width) + rng.normal(0, 0.02, (1, height, width, 3))
    done = sum(count for _, count in pieces[: run.first_epoch])
    longest_now = 0
    with tqdm(total=config.steps, initial=done, unit="step", disable=config.smoke) as bar:
        for index in range(run.first_epoch, len(pieces)):
            longest, count = pieces[index]
            if longest != longest_now:  # the first piece of a size
                longest_now = longest
                height, width = shape_at(content, longest)
                losses = make_losses(
                    config,
                    extractor,
                    resized(content, height, width),
                    resized(style, *shape_at(style, longest)),
                )
                optimizer = keras.optimizers.Adam(
                    keras.optimizers.schedules.CosineDecay(
                        LEARNING_RATE,
                        sum(count for size, count in pieces if size == longest),
                        alpha=0.1,
                    )
                )
                states = None
                if index and index == run.first_epoch:  # go on where the last run was stopped
                    with np.load(run.checkpoint_file, allow_pickle=False) as archive:
                        states = [archive[f"v{n}"] for n in range(len(archive.files) - 1)]
                    image = states[0]
                image = keras.ops.image.resize(image, (height, width), "bicubic")
                pixels = keras.Variable(keras.ops.clip(image, 0, 1), dtype="float32")
                optimizer.build([pixels])
                if states and pieces[index - 1][0] == longest:
                    for variable, value in zip(optimizer.variables, states[1:], strict=True):
                        variable.assign(value)
                step = make_step(losses, pixels, optimizer)
            parts = [step() for _ in range(count)]
            means = {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}
            image = keras.ops.convert_to_numpy(pixels)
            arrays = [keras.ops.convert_to_numpy(state) for state in optimizer.variables]
            done += count
            where = {"step": done, "size": longest}
            run.record_epoch(index, where | means, [image, *arrays])
            to_image(image).save(run.folder / f"result_{longest}.png")
            bar.update(count)
            bar.set_postfix({"px": longest} | {n: f"{v:.3g}" for n, v in means.items()})
    return image


# --- What came out -------------------------------------------------------------------------------


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
        "ssim_content": ssim(result, content),
        "difference_from_content": float(np.mean(np.abs(result - content))),
        "difference_from_style": float(np.mean(np.abs(result - stretched))),
        "floor_style_loss_of_content": float(losses(content)["style_loss"]),
        "floor_content_loss_of_style": float(losses(stretched)["content_loss"]),
        "floor_ssim_of_style": ssim(stretched, content),
    }


def largest_rise(history: dict[str, list[float]]) -> float:
    """Largest relative rise of the loss from one record to the next of the same size; 0 if none."""
    rises = [0.0]
    for index in range(1, len(history["loss"])):
        if history["size"][index] == history["size"][index - 1]:
            rises.append(history["loss"][index] / history["loss"][index - 1] - 1)
    return max(rises)


def panel_figure(images: Sequence[np.ndarray], label: str) -> figures.Figure:
    """Content, style and result side by side; the title names the network."""
    figure, axes = figures.subplots(1, 3, size=(12, 3.6))
    for axis, image, title in zip(axes, images, ("content", "style", "result"), strict=True):
        axis.imshow(image[0])
        axis.axis("off")
        axis.set_title(title)
    figure.suptitle(f"features: {label}", fontsize=9, color="0.3")
    return figure


def curves_figure(history: dict[str, list[float]], config: Config) -> figures.Figure:
    """The loss and its weighted parts against the step, with a line where the size changes."""
    figure, axis = figures.subplots(size=(7, 4))
    steps = history["step"]
    weights = {
        "loss": 1,
        "content_loss": 1,
        "style_loss": config.style_weight,
        "total_variation": config.tv_weight,
    }
    for name, weight in weights.items():
        values = weight * np.array(history[name])
        if values.any():
            axis.plot(steps, values, label=name.replace("_", " "), marker="o", markersize=2)
    for index in np.flatnonzero(np.diff(history["size"])):
        axis.axvline(steps[index] + 0.5, color="0.6", linestyle="--")
    sizes = " → ".join(f"{size:.0f}" for size in dict.fromkeys(history["size"]))
    axis.set(xlabel="step", yscale="log", title=f"Weighted losses, {sizes} pixels")
    axis.legend()
    return figure


def report(config: Config, network: Network, metrics: dict[str, float]) -> str:
    """The run's `report.md`: which network looked at which layers, and what came out."""
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in metrics.items())
    return (
        f"# {config.content.name} in the manner of {config.style.name}\n\n"
        f"Features: {network.label} ({network.source}). Content layer: {network.content_layer}. "
        f"Style layers: {', '.join(network.style_layers)}. {config.steps} steps, style weight "
        f"{config.style_weight:g}, total variation {config.tv_weight:g}, seed {config.seed}.\n\n"
        f"| metric | value |\n| --- | --- |\n{rows}\n\n"
        "Losses are shares of the target's own square: 0 is equal, 1 as far away as nothing at "
        "all. The floors are what the unchanged content and style images get.\n"
    )


def show(metrics: dict[str, float]) -> dict[str, float]:
    """Print the result beside its floors and return `metrics`."""
    print(
        f"Style loss: {metrics['style_loss']:.4f} (the content image itself: "
        f"{metrics['floor_style_loss_of_content']:.4f})\n"
        f"Content loss: {metrics['content_loss']:.4f} (the style image itself: "
        f"{metrics['floor_content_loss_of_style']:.4f})\n"
        f"SSIM against the content: {metrics['ssim_content']:.3f} (the style image itself: "
        f"{metrics['floor_ssim_of_style']:.3f})"
    )
    return metrics


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Read, optimise, measure, save; return the final metrics."""
    config = labkit.parse(Config, argv)
    if config.smoke:
        config = replace(config, size=min(config.size, 96), steps=min(config.steps, 6))
    content = read_image(config.content, "content")
    style = read_image(config.style, "style")
    for field, image in (("content", content), ("style", style)):
        shorter = min(shape_at(image, config.size))
        if shorter < SMALLEST_SIDE:
            fail(
                f"--{field} {getattr(config, field)} is {image.width}x{image.height}: with "
                f"--size {config.size} its shorter side would have {shorter} pixels, and "
                f"{SMALLEST_SIDE} are needed"
            )
    labkit.prepare(config.seed)
    network = find_network(config.data, config.weights)
    print(f"Features: {network.label} ({network.source})")
    deepest = "" if network.content_layer == "block5_conv2" else ", the deepest of this network"
    print(f"Content layer: {network.content_layer}{deepest}")
    print(f"Style layers: {', '.join(network.style_layers)}")
    digest = hashlib.sha256(content.tobytes() + style.tobytes()).hexdigest()[:8]
    source = f"{network.source}+pictures:{digest}"
    name = f"{network.name}-adam-gram+content+tv-s{config.seed}"

    with labkit.start_run(__file__, config, source, name) as run:
        if run.is_finished:
            return show(run.metrics)
        result = stylise(config, network, content, style, run)
        seconds = run.seconds
        small_content = resized(content, *result.shape[1:3])
        small_style = resized(style, *shape_at(style, config.size))
        metrics = examine(config, network, small_content, small_style, result)
        metrics |= {"largest_rise": largest_rise(run.history), "train_seconds": seconds}
        run.log_metrics(metrics)
        to_image(result).save(run.folder / "result.png")
        shown = (small_content, small_style, result)
        panel = run.save_figure("panel", panel_figure(shown, network.label))
        if config.panel:
            with Image.open(panel) as drawn:
                drawn.convert("RGB").save(config.panel)
        run.save_figure("losses", curves_figure(run.history, config))
        run.save_text("report.md", report(config, network, metrics))
    return show(metrics)


if __name__ == "__main__":
    main()
