"""Write the README tables from `results/*.json` and the code, between their markers.

python tools/tables.py            # rewrite what changed
python tools/tables.py --check    # exit code 1 if something would change
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import labkit
from labkit.datasets import ORIGINS
from labkit.machine import ROOT
from labkit.results import FOLDER, read
from tp2_improvement.evidence import mean_interval
from tp4_unet_conv3d.conv3d_cost import cost_table
from tp5_seq2seq_attention.floors import HORIZONS, PUBLISHED

QUOTE = re.compile(
    r"(<!-- = (?P<result>[a-z0-9_.]+) (?P<first>[a-z0-9_.]+)(?: - (?P<second>[a-z0-9_.]+))?"
    r"/(?P<metric>[a-z0-9_.]+) -->).*?(<!-- / -->)",
    re.DOTALL,
)
"""A stored figure in the middle of a sentence: of one configuration, or a difference of two."""
MARKER = re.compile(r"(<!-- table:(?P<name>[a-z0-9_]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


@dataclass(frozen=True)
class Config:
    """What to do with the tables."""

    check: bool = False
    """Only say what is out of date."""


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table. Usage: `table(["model", "accuracy"], [["dense", "97.9"]])`."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(summary: dict, factor: float = 1, digits: int = 2) -> str:
    """`mean ± sd (n)`. Usage: `spread({"mean": .979, "std": .001, "n": 5}, 100)`."""
    mean = f"{factor * summary['mean']:.{digits}f}"
    if summary["n"] == 1:
        return f"{mean} (n = 1)"
    return f"{mean} ± {factor * summary['std']:.{digits}f} (n = {summary['n']})"


MODELS = {
    "dense": "hand-out's dense network",
    "dense_stratified": "the same, random stratified validation images",
    "dense_strong": "strong dense network",
    "cnn": "convolutional network",
    "compact": "small convolutional network, the one that is served",
}


def tp1_accuracy() -> str:
    """Accuracies of TP1's models and their floors, in percent."""
    rows = []
    found = {variant: read(f"tp1_mnist_api.train_model.{variant}") for variant in MODELS}
    floors = {name: v for content in found.values() for name, v in content["floors"].items()}
    for name, value in sorted(floors.items(), key=lambda floor: floor[1]):
        rows.append([f"floor: {name.replace('_', ' ')}", f"{100 * value:.2f}", "", "", ""])
    for variant, content in found.items():
        metrics = content["metrics"]
        rows.append(
            [
                MODELS[variant],
                f"**{spread(metrics['test_accuracy'], 100)}**",
                spread(metrics["validation_accuracy"], 100),
                spread(metrics["train_accuracy"], 100),
                spread(content["train_seconds"], digits=0),
            ]
        )
    return table(["model", "test %", "validation %", "training %", "seconds"], rows)


def tp1_examined() -> str:
    """What evaluate.py finds on the test images."""
    rows = []
    shown = {
        "expected_calibration_error": "calibration error (ECE)",
        "accuracy_shift_6": "accuracy %, shifted 6 pixels",
        "accuracy_rotation_60": "accuracy %, rotated 60 degrees",
        "accuracy_noise_0.5": "accuracy %, noise of sd 0.5",
    }
    variants = [variant for variant in MODELS if variant != "dense_stratified"]
    for name, label in shown.items():
        row = [label]
        for variant in variants:
            value = read(f"tp1_mnist_api.train_model.{variant}")["metrics"][name]
            row.append(spread(value, 100, 1) if "%" in label else spread(value, digits=4))
        rows.append(row)
    return table(["", *(MODELS[variant] for variant in variants)], rows)


def tp1_pictures() -> str:
    """Accuracy on pictures drawn in many ways."""
    content = read("tp1_mnist_api.evaluate_pictures")
    rows = [["floor: majority", f"{100 * content['floors']['majority']:.1f}"]]
    for name, value in content["metrics"].items():
        way = name.removeprefix("accuracy_").replace("_", " ")
        rows.append([way, spread(value, 100, 1)])
    return table(["way", "test %"], rows)


TP3 = {
    "cnn": "hand-out's CNN",
    "resnet_plain": "hand-out's Mini-ResNet, no batch normalisation",
    "resnet": "the same with batch normalisation",
    "resnet_falling": "the same with a falling learning rate",
    "fast_resnet": "`fast-resnet`",
    "fast_resnet_long": "`fast-resnet --budget long`",
    "fast_resnet_record": "`fast-resnet --budget record`",
}


def stored(script: str, variants: Iterable[str]) -> dict[str, dict]:
    """What is stored of a script's `variants`, by variant."""
    names = {variant: f"{script}.{variant}" for variant in variants}
    return {
        variant: read(name) for variant, name in names.items() if (FOLDER / f"{name}.json").exists()
    }


def tp3_results() -> dict[str, dict]:
    """The stored trainings of TP3, by variant."""
    return stored("tp3_cnn_resnet.cnn_classification", TP3)


def tp3_accuracy() -> str:
    """Accuracies of TP3's networks and their floors, in percent, with what they cost."""
    found = tp3_results()
    # The first network's: those of `record` were fitted to 50,000 pictures.
    floors = next(iter(found.values()))["floors"]
    rows = [
        [f"floor: {name}", "", f"{100 * value:.2f}", "", "", "", "", ""]
        for name, value in sorted(floors.items(), key=lambda floor: floor[1])
    ]
    for variant, content in found.items():
        metrics = content["metrics"]
        last = metrics.get("test_accuracy_last_epoch")
        validation = metrics.get("validation_accuracy")
        rows.append(
            [
                TP3[variant],
                f"{metrics['parameters']['mean']:,.0f}",
                f"**{spread(metrics['test_accuracy'], 100)}**",
                spread(metrics["test_accuracy_mirrored"], 100),
                spread(last, 100) if last else "",
                spread(validation, 100) if validation else "",
                f"{metrics['training_petaflop']['mean']:.3f}",
                spread(content["train_seconds"], digits=0),
            ]
        )
    header = ["network", "parameters", "test %", "test %, mirror images averaged"]
    header += ["test %, last epoch", "validation %", "PFLOP", "seconds"]
    return table(header, rows)


def tp3_settling() -> str:
    """For each Mini-ResNet, the late epoch in which its moving averages misled most."""
    columns = {
        "batchnorm_lag_epoch": (1, 0),
        "batchnorm_lag_validation_accuracy": (100, 2),
        "batchnorm_lag_validation_accuracy_recalibrated": (100, 2),
        "test_accuracy_last_epoch": (100, 2),
        "test_accuracy": (100, 2),
    }
    rows = []
    for rate, variant in (("constant", "resnet"), ("falling", "resnet_falling")):
        content = read(f"tp3_cnn_resnet.cnn_classification.{variant}")
        for index, seed in enumerate(content["seeds"]):
            values = [content["metrics"][name]["values"][index] for name in columns]
            shown = zip(values, columns.values(), strict=True)
            figures = [f"{factor * value:.{digits}f}" for value, (factor, digits) in shown]
            rows.append([rate, str(seed), *figures])
    header = ["rate", "seed", "epoch", "validation %, moving averages", "validation %, settled"]
    return table([*header, "test %, last epoch", "test %, best epoch"], rows)


def tp3_examined() -> str:
    """Accuracy of TP3's networks under corruptions."""
    found = {
        variant: content
        for variant, content in tp3_results().items()
        if "accuracy_clean" in content["metrics"]
    }
    some = next(iter(found.values()))["metrics"]
    names = [name for name in some if name.startswith("accuracy_")]
    rows = [
        [label]
        + [spread(content["metrics"][name], 100, 1) for content in found.values()]
        for name, label in [
            ("accuracy_clean", "clean"),
            *((n, n.removeprefix("accuracy_").replace("_", " ")) for n in names
              if n != "accuracy_clean"),
            ("mean_corruption_accuracy", "mean over corruptions"),
        ]
    ]  # fmt: skip
    return table(["test % on 2,000 images", *(TP3[variant] for variant in found)], rows)


def tp3_race() -> str:
    """The race to the final accuracy of the hand-out's CNN."""
    content = read("bench.cifar_time_to_accuracy")
    rows = [
        [recipe["label"], spread(recipe["seconds"], digits=0), spread(recipe["test_accuracy"], 100)]
        for recipe in content["recipes"].values()
    ]
    rows.append(["times as fast", spread(content["ratio_fast_over_plain"], digits=1), ""])
    return table(["recipe", "seconds", "test % then"], rows)


def tp3_style() -> str:
    """Losses and similarity of style transfer with two feature networks."""
    found = {
        label: read(f"tp3_cnn_resnet.style_transfer.{variant}")
        for variant, label in (
            ("vgg19_distilled", "distilled VGG-19, ImageNet"),
            ("cifar10_net", "our CIFAR-10 network"),
        )
    }
    rows = []
    for name, label, floor in (
        ("style_loss", "style loss", "style_loss_of_content"),
        ("content_loss", "content loss", "content_loss_of_style"),
        ("ssim_content", "SSIM against the content", "ssim_of_style"),
        ("difference_from_content", "mean absolute difference from the content", None),
        ("difference_from_style", "mean absolute difference from the style", None),
        ("largest_rise", "largest rise of the loss within a size", None),
    ):
        row = [label]
        for content in found.values():
            row.append(spread(content["metrics"][name], digits=3))
            row.append(f"{content['floors'][floor]:.3f}" if floor else "")
        rows.append(row)
    seconds = [spread(content["train_seconds"], digits=0) for content in found.values()]
    rows.append(["seconds", seconds[0], "", seconds[1], ""])
    return table(["", *(cell for label in found for cell in (label, "the other picture"))], rows)


def tp3_masks() -> str:
    """The segmentation demonstration: two networks beside their floors."""
    content = read("tp3_cnn_resnet.segmentation_demo")
    metrics, floors = content["metrics"], content["floors"]
    keys = ("iou", "pixel_accuracy", "contour_accuracy", "shape_iou")
    rows = [
        ["floor: all background", "", f"{floors['background_pixel_accuracy']:.3f}", "", ""],
        ["floor: colour threshold", "", "", "", f"{floors['colour_shape_iou']:.3f}"],
        ["the truth at 6x6 pixels", f"{metrics['truth_at_6x6_iou']['mean']:.3f}", "", "", ""],
    ]
    for name in ("without_skip", "with_skip"):
        figures = [spread(metrics[f"{key}_{name}"], digits=3) for key in keys]
        rows.append([name.replace("_", " "), *figures])
    header = ["", "IoU, mean of three shapes", "pixels right", "contours right"]
    return table([*header, "IoU, shape or background"], rows)


def tp3_boxes() -> str:
    """The box demonstration: a detector beside its floors."""
    content = read("tp3_cnn_resnet.box_demo")
    metrics, floors = content["metrics"], content["floors"]
    rows = [
        [
            label,
            *(
                f"{floors[f'{name}_{key}']:.3f}"
                for key in ("box_ap", "ap", "iou", "boxes_per_image")
            ),
        ]
        for name, label in (
            ("mean", "floor: mean box"),
            ("colour", "floor: areas of another colour"),
        )
    ]
    for prefix, label in (
        ("unsuppressed_", "detector, all cells' boxes"),
        ("", "detector, suppressed"),
    ):
        figures = [spread(metrics[f"{prefix}{key}"], digits=3) for key in ("box_ap", "ap", "iou")]
        rows.append([label, *figures, spread(metrics[f"{prefix}boxes_per_image"], digits=1)])
    rows.append(["the truth", "", "", "", f"{metrics['true_boxes_per_image']['mean']:.1f}"])
    header = ["", "average precision of boxes", "of boxes with classes", "IoU of true boxes"]
    return table([*header, "boxes per image"], rows)


def tp3_speed() -> str:
    """Training speed of TP3's networks by precision and normalisation."""
    networks = read("bench.cifar_speed")["networks"]
    rows = []
    for variant in networks["mini_resnet"]:
        row = [variant]
        for found in networks.values():
            row.append(spread(found[variant]["pictures_per_second"], digits=0))
            row.append(spread(found[variant]["times_as_fast"]))
        rows.append(row)
    heads = [cell for name in networks for cell in (f"{name}, images/s", "times as fast")]
    return table(["", *heads], rows)


def tp4_masks(variants: dict[str, str]) -> str:
    """Segmentations beside their floors: Dice, what was missed, outlines."""
    rows = []
    found = stored("tp4_unet_conv3d.unet_segmentation", variants)
    floors = {name: v for content in found.values() for name, v in content["floors"].items()}
    for name, value in sorted(floors.items(), key=lambda floor: floor[1]):
        rows.append([f"floor: {name.replace('_', ' ')}", "", f"{value:.3f}", *[""] * 7])
    for variant, content in found.items():
        metrics = content["metrics"]
        missed, kept = (
            f"{metrics[part]['mean']:.1f} of {metrics[whole]['mean']:.0f}"
            for part, whole in (
                ("small_objects_missed", "small_objects"),
                ("empty_images_kept_empty", "empty_images"),
            )
        )
        rows.append(
            [
                variants[variant],
                f"{metrics['parameters']['mean']:,.0f}",
                f"**{spread(metrics['dice'], digits=3)}**",
                "{:.3f} to {:.3f}".format(
                    *(metrics[f"dice_{end}"]["values"][0] for end in ("low", "high"))
                ),
                spread(metrics["dice_mirrored"], digits=3),
                spread(metrics["iou"], digits=3),
                missed,
                kept,
                spread(metrics["boundary_f1"], digits=3),
                spread(content["train_seconds"], digits=0),
            ]
        )
    header = ["", "parameters", "Dice", "95 % interval, first seed", "mirror images averaged"]
    header += ["IoU", "small objects missed"]
    return table([*header, "empty images kept empty", "contours F1", "seconds"], rows)


def tp4_losses() -> str:
    """Five losses on the same terms."""
    content = read("tp4_unet_conv3d.loss_comparison")
    metrics, columns = content["metrics"], content["details"]["columns"]
    columns = {name: label for name, label in columns.items() if not name.startswith("seconds")}
    rows = [
        [f"floor: {name.replace('_', ' ')}", f"{value:.3f}", *[""] * (len(columns) - 1)]
        for name, value in content["floors"].items()
    ]
    for loss in dict.fromkeys(name.partition("/")[0] for name in metrics):
        row = [loss.replace("_and_", "+")]
        for name in columns:
            found = metrics.get(f"{loss}/{name}")
            digits = 3 if found and found["mean"] <= 1 else 1
            row.append(spread(found, digits=digits) if found else "never")
        rows.append(row)
    return table(["loss", *columns.values()], rows)


def tp4_tubes() -> str:
    """A U-Net of slices beside one of volumes."""
    content = read("tp4_unet_conv3d.volume_segmentation.tubes")
    metrics = content["metrics"]
    columns = {
        "dice": ("Dice by volume", 3),
        "iou": ("IoU", 3),
        "boundary_f1": ("contours F1, slices", 3),
        "epochs_to_dice_0.8": ("epochs to validation Dice 0.8", 1),
        "seconds_to_dice_0.8": ("seconds to it", 0),
    }
    rows = [
        [f"floor: {name.replace('_', ' ')}", "", "", f"{value:.3f}", *[""] * len(columns)]
        for name, value in sorted(content["floors"].items(), key=lambda floor: floor[1])
    ]
    for network, label in (("slices", "1x3x3, slice by slice"), ("volumes", "3x3x3")):
        row = [label]
        row.append(f"{metrics[f'{network}/parameters']['mean']:,.0f}")
        row.append(f"{metrics[f'{network}/gigaflop_per_volume']['mean']:.2f}")
        for name, (_, digits) in columns.items():
            found = metrics.get(f"{network}/{name}")
            row.append(spread(found, digits=digits) if found else "never")
        rows.append([*row, spread(content["train_seconds"][network], digits=0)])
    header = [
        "kernels",
        "parameters",
        "GFLOP per volume",
        *(label for label, _ in columns.values()),
    ]
    return table([*header, "seconds"], rows)


def tp4_volumes() -> str:
    """Conv3D beside the networks that see slices, and the floors."""
    content = read("tp4_unet_conv3d.conv3d_analysis")
    metrics = content["metrics"]
    rows = [
        [f"floor: {name.replace('_', ' ')}", "", f"{100 * value:.1f}", "", "", ""]
        for name, value in content["floors"].items()
    ]
    for network in dict.fromkeys(name.partition("/")[0] for name in metrics):
        parts = (metrics[f"{network}/{p}_accuracy"] for p in ("test", "validation", "train"))
        rows.append(
            [
                f"`{network}`",
                f"{metrics[f'{network}/parameters']['mean']:,.0f}",
                *(spread(part, 100, 1) for part in parts),
                spread(content["train_seconds"][network], digits=0),
            ]
        )
    return table(["network", "parameters", "test %", "validation %", "training %", "seconds"], rows)


def tp4_cost() -> str:
    """Memory and time of a training step of Conv3D."""
    return cost_table(read("tp4_unet_conv3d.conv3d_analysis")["details"]["cost"])


def tp5_attention() -> str:
    """Accuracy and attention recall of the networks of every task and length, with the floors."""
    content = read("tp5_seq2seq_attention.attention_exercise")
    metrics, floors = content["metrics"], content["floors"]
    names = list(dict.fromkeys(name.partition("/")[0] for name in metrics))
    rows = []
    for task in dict.fromkeys(name.rpartition("_")[2] for name in names):
        words = re.sub(r"(\D+)(\d+)", r"`\1`, \2 words", task)
        accuracy, recall = (
            floors[f"{floor}_{task}"] for floor in ("majority", "uniform_attention")
        )
        rows.append(
            [words, "floor: majority, uniform attention", f"{accuracy:.3f}", f"{recall:.3f}", ""]
        )
        for name in (name for name in names if name.endswith(f"_{task}")):
            found = metrics.get(f"{name}/test_attention_recall")
            rows.append(
                [
                    words,
                    f"`{name.removesuffix(f'_{task}')}`",
                    spread(metrics[f"{name}/test_accuracy"], digits=3),
                    spread(found, digits=3) if found else "",
                    spread(content["train_seconds"][name], digits=0),
                ]
            )
    return table(["sentences", "network", "test accuracy", "attention recall", "seconds"], rows)


FORECAST = "tp5_seq2seq_attention.seq2seq_attention"
TP5_SERIES = {
    "synthetic": "synthetic, 10",
    "monthly": "monthly, 12",
    **{f"etth1_{horizon}": f"ETTh1, {horizon}" for horizon in HORIZONS},
    "etth1_ot": "ETTh1, oil temperature, 96",
}


def tp5_forecasts(variants: tuple[str, ...]) -> str:
    """Free-running test errors of the forecaster beside floors and published figures."""
    found = stored(FORECAST, variants)
    floors = dict.fromkeys(
        name
        for content in found.values()
        for name in content["floors"]
        if not name.endswith("_mae")
    )
    rows = [
        [
            "best possible: the noise" if floor == "noise" else f"floor: {floor.replace('_', ' ')}",
            *(
                f"{content['floors'][floor]:.4f}" if floor in content["floors"] else ""
                for content in found.values()
            ),
        ]
        for floor in floors
    ]
    metrics = [content["metrics"] for content in found.values()]
    rows.append(
        ["**BiLSTM + attention**", *(f"**{spread(each['mse'], digits=4)}**" for each in metrics)]
    )
    rows.append(["its mean absolute error", *(spread(each["mae"], digits=4) for each in metrics)])
    if set(variants) <= {f"etth1_{horizon}" for horizon in HORIZONS}:
        places = [HORIZONS.index(int(variant.rpartition("_")[2])) for variant in found]
        for name, row in PUBLISHED.items():
            rows.append([f"published: {name}", *(f"{row[place]:.3f}" for place in places)])
    rows.append(["seconds", *(spread(c["train_seconds"], digits=0) for c in found.values())])
    return table(["mean squared error", *(TP5_SERIES[variant] for variant in found)], rows)


def tp5_behaviour() -> str:
    """What teacher forcing hides, what the intervals hold, how far attention reaches."""
    rows = []
    for variant, content in stored(FORECAST, TP5_SERIES).items():
        metrics = content["metrics"]
        forced = metrics.get("teacher_forced_mse")
        span, steps, equal, distance = (
            metrics[f"attention_{name}"]["mean"]
            for name in ("span", "steps", "span_of_uniform_attention", "distance")
        )
        uniform_distance = metrics["attention_distance_of_uniform_attention"]["mean"]
        rows.append(
            [
                TP5_SERIES[variant],
                spread(forced, digits=4) if forced else "",
                spread(metrics["free_running_gap"], digits=4) if forced else "",
                spread(metrics["raw_coverage"], 100, 1),
                spread(metrics["coverage"], 100, 1),
                f"{span:.1f} of {steps:.0f} ({equal:.0f})",
                f"{distance:.1f} ({uniform_distance:.1f})",
            ]
        )
    header = ["series", "MSE under teacher forcing", "free-running costs"]
    header += ["90 % intervals hold, %", "calibrated, %", "steps with 90 % of the attention"]
    return table([*header, "mean distance back"], rows)


def findings(script: str) -> str:
    """The sentences that a comparison itself drew from its figures."""
    return "".join(f"- {sentence}\n" for sentence in read(script)["conclusions"])


def time_to_accuracy() -> str:
    """The race to 99 % test accuracy."""
    content = read("bench.mnist_time_to_accuracy")
    rows = [
        [recipe["label"], spread(recipe["seconds"], digits=1), spread(recipe["test_accuracy"], 100)]
        for recipe in content["recipes"].values()
    ]
    return table(["recipe", "seconds to 99 %", "test % then"], rows)


def api_load() -> str:
    """The API beside other ways to serve its model, the fastest first."""
    content = read("bench.api_load")
    servers = content["servers"].items()
    rows = []
    for name, found in sorted(servers, key=lambda item: -item[1]["requests_per_second"]["mean"]):
        statuses = found["bad_inputs"].values()
        ratio = content.get(f"ratio_ours_over_{name}")
        rows.append(
            [
                found["label"],
                spread(found["requests_per_second"], digits=0),
                *(f"{found[key]['mean']:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
                f"{sum(found['errors']['values'])}",
                f"{sum(400 <= status < 500 for status in statuses)} of {len(statuses)}",
                f"{found['memory_mib']['mean']:.0f}",
                f"{found['cold_start_seconds']['mean']:.1f}",
                f"{found['environment_mb']:.0f}",
                spread(ratio) if ratio else "",
            ]
        )
    rows += [
        [f"{name}, absent: {reason}", *[""] * 10] for name, reason in content["absent"].items()
    ]
    header = ["server", "requests/s", "p50 ms", "p95 ms", "p99 ms", "errors", "bad inputs refused"]
    header += ["memory MiB", "cold start s", "environment MB", "ours is times as fast"]
    return table(header, rows)


TP2 = {
    "bias_variance": (
        "tp2_improvement.tp2_ex1_bias_variance",
        {
            "train_accuracy": "training %",
            "logged_train_accuracy": "training % as printed by fit()",
            "validation_accuracy": "validation %",
            "test_accuracy": "test %",
        },
    ),
    "regularization": (
        "tp2_improvement.tp2_ex2_regularization",
        {
            "train_accuracy": "training %",
            "validation_accuracy": "validation %",
            "validation_cross_entropy": "validation loss",
            "test_accuracy": "test %",
        },
    ),
    "optimizers": (
        "tp2_improvement.tp2_ex3_optimizers",
        {
            "train_accuracy": "training %",
            "validation_accuracy": "validation %",
            "test_accuracy": "test %",
        },
    ),
    "batchnorm": (
        "tp2_improvement.tp2_ex4_batchnorm",
        {
            "epochs_to_97.5": "epochs to 97.5 % validation",
            "seconds_to_97.5": "seconds to it",
            "validation_accuracy": "validation %",
            "test_accuracy": "test %",
        },
    ),
}


def tp2_table(name: str) -> str:
    """Floors and configurations of one of TP2's comparisons."""
    script, columns = TP2[name]
    content = read(script)
    empty = [""] * (len(columns) - 1)
    place = list(columns).index("test_accuracy")
    rows = [
        [f"floor: {floor.replace('_', ' ')}", *empty[:place], f"{100 * value:.2f}", *empty[place:]]
        for floor, value in content["floors"].items()
    ]
    every = [key.partition("/") for key in content["metrics"]]
    for configuration in [name for name, _, metric in every if metric == "train_accuracy"]:
        row = [f"`{configuration}`"]
        for metric in columns:
            found = content["metrics"].get(f"{configuration}/{metric}")
            factor, digits = (100, 2) if "accuracy" in metric else (1, 3)
            if "_to_" in metric:
                digits = 1
            row.append(spread(found, factor, digits) if found else "")
        rows.append(row)
    return table(["configuration", *columns.values()], rows)


def quote(match: re.Match) -> str:
    """The quoted figure: a mean, or a paired difference of means, with its 95 % interval."""
    metrics, metric = read(match["result"])["metrics"], match["metric"]
    values = metrics[f"{match['first']}/{metric}"]["values"]
    factor, unit = (100, "%") if "accuracy" in metric else (1, "")
    sign, digits = "", 2 if "accuracy" in metric else 1
    if match["second"]:
        other = metrics[f"{match['second']}/{metric}"]["values"]
        values = [a - b for a, b in zip(values, other, strict=True)]
        sign, unit = "+", "points"
    low, high = mean_interval(values)
    mean, low, high = (f"{factor * x:{sign}.{digits}f}" for x in (fmean(values), low, high))
    return f"{match[1]}{mean} {unit} [{low}, {high}]{match[match.re.groups]}"


def data_licences() -> str:
    """Origin and licence of every data set."""
    rows = [
        [name, origin.credit, origin.licence, f"`{origin.content_sha256[:8]}`", origin.sample]
        for name, origin in ORIGINS.items()
    ]
    return table(["data set", "by", "licence", "SHA-256 of the content", "sample without it"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "tp1_accuracy": tp1_accuracy,
    "tp1_examined": tp1_examined,
    "tp1_pictures": tp1_pictures,
    "time_to_accuracy": time_to_accuracy,
    "api_load": api_load,
    "tp3_accuracy": tp3_accuracy,
    "tp3_settling": tp3_settling,
    "tp3_examined": tp3_examined,
    "tp3_race": tp3_race,
    "tp3_style": tp3_style,
    "tp3_masks": tp3_masks,
    "tp3_boxes": tp3_boxes,
    "tp3_speed": tp3_speed,
    "tp4_cells": partial(
        tp4_masks, {"cells": "U-Net, 16 filters", "cells_handout": "the hand-out's, 32 filters"}
    ),
    "tp4_mri": partial(tp4_masks, {"mri": "U-Net, 16 filters"}),
    "tp4_losses": tp4_losses,
    "tp4_losses_findings": partial(findings, "tp4_unet_conv3d.loss_comparison"),
    "tp4_tubes": tp4_tubes,
    "tp4_tubes_findings": partial(findings, "tp4_unet_conv3d.volume_segmentation.tubes"),
    "tp4_volumes": tp4_volumes,
    "tp4_cost": tp4_cost,
    "tp5_attention": tp5_attention,
    "tp5_attention_findings": partial(findings, "tp5_seq2seq_attention.attention_exercise"),
    "tp5_forecasts": partial(tp5_forecasts, ("synthetic", "monthly")),
    "tp5_etth1": partial(tp5_forecasts, tuple(f"etth1_{horizon}" for horizon in HORIZONS)),
    "tp5_etth1_ot": partial(tp5_forecasts, ("etth1_ot",)),
    "tp5_behaviour": tp5_behaviour,
    "data_licences": data_licences,
    **{f"tp2_{name}": partial(tp2_table, name) for name in TP2},
    **{f"tp2_{name}_findings": partial(findings, script) for name, (script, _) in TP2.items()},
}


def render(text: str) -> str:
    """`text` with every marked table and every quoted figure written anew."""
    text = QUOTE.sub(quote, text)
    return MARKER.sub(lambda match: match[1] + TABLES[match["name"]]() + match[3], text)


def pages() -> list[Path]:
    """The Markdown pages that may hold tables."""
    folders = ("*.md", "docs/*.md", "tp*/**/README.md")
    return [page for folder in folders for page in sorted(ROOT.glob(folder))]


def main(argv: list[str] | None = None) -> None:
    """Rewrite or check all pages."""
    config = labkit.parse(Config, argv)
    stale = [page for page in pages() if render(page.read_text()) != page.read_text()]
    for page in stale:
        print(("out of date: " if config.check else "wrote ") + str(page.relative_to(ROOT)))
        if not config.check:
            page.write_text(render(page.read_text()))
    if config.check and stale:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
