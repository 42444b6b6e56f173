"""TP3's reference figures: how they are made, what they must reach, how README.md shows them."""

from labkit.experiments import Column, Experiment, Gate, Row, machines, spread, table_of
from labkit.results import markdown_table, read
from tp3_cnn_resnet.corruptions import CORRUPTIONS

CLASSIFY, FAST = "tp3_cnn_resnet.cnn_classification", "tp3_cnn_resnet.fast_cnn"
EXAMINE = "tp3_cnn_resnet.evaluate"
STYLE = "tp3_cnn_resnet.style_transfer"
SEGMENT, BOXES = "tp3_cnn_resnet.segmentation_demo", "tp3_cnn_resnet.box_demo"


def reaches(lowest: float, highest: float, *others: str) -> tuple[Gate, ...]:
    """A gate on the test accuracy, which must be above the floors and `others` in every seed."""
    floors = ("floor_majority", "floor_ridge")
    return (Gate("test_accuracy", lowest, highest, above=(*floors, *others)),)


EXPERIMENTS = (
    Experiment(CLASSIFY, "cnn", ("--model", "cnn"), then=EXAMINE, gates=reaches(0.70, 0.74)),
    Experiment(CLASSIFY, "resnet_plain", ("--model", "resnet-plain")),
    Experiment(CLASSIFY, "resnet", ("--model", "resnet")),
    Experiment(
        CLASSIFY, "resnet_falling", ("--model", "resnet", "--rate", "falling"), then=EXAMINE,
        gates=reaches(0.80, 0.84, f"{CLASSIFY}.cnn:test_accuracy"),
    ),
    Experiment(FAST, "default", then=EXAMINE, gates=reaches(0.90, 0.93)),
    Experiment(FAST, "long", ("--budget", "long"), (0,), EXAMINE, gates=reaches(0.93, 0.95)),
    Experiment(FAST, "record", ("--budget", "record"), (0,), EXAMINE, gates=reaches(0.94, 0.96)),
    Experiment(STYLE, "vgg19_distilled"),
    Experiment(STYLE, "cifar10_net", data="sample"),
    Experiment(SEGMENT, data="auto"),
    Experiment(BOXES, data="auto"),
)  # fmt: skip

CNN = Row("hand-out's CNN", f"{CLASSIFY}.cnn")
FALLING = Row("the same with a falling learning rate", f"{CLASSIFY}.resnet_falling")
FASTS = (
    Row("`fast-cnn`", f"{FAST}.default"),
    Row("`fast-cnn --budget long`", f"{FAST}.long"),
    Row("`fast-cnn --budget record`", f"{FAST}.record"),
)


def tp3_accuracy() -> str:
    """Accuracies of the networks and their floors, in percent, with what they cost."""
    rows = [
        CNN,
        Row("hand-out's Mini-ResNet, no batch normalisation", f"{CLASSIFY}.resnet_plain"),
        Row("the same with batch normalisation", f"{CLASSIFY}.resnet"),
        FALLING,
        *FASTS,
    ]
    columns = [
        Column("parameters", "parameters", digits=0, plain=True),
        Column("test %", "test_accuracy", 100, bold=True),
        Column("test %, mirror images averaged", "test_accuracy_mirrored", 100),
        Column("test %, last epoch", "test_accuracy_last_epoch", 100),
        Column("validation %", "validation_accuracy", 100),
        Column("PFLOP", "training_petaflop", digits=3, plain=True),
        Column("seconds", "train_seconds", digits=0),
    ]
    # The first network's floors: those of `record` were fitted to 50,000 images.
    return table_of(rows, columns, "network", main="test_accuracy", floors_from=rows[:1])


def tp3_recalibration() -> str:
    """For each Mini-ResNet, the late epoch in which its moving averages misled most."""
    columns = {
        "epoch": ("batchnorm_lag_epoch", 1, 0),
        "validation %, moving averages": ("batchnorm_lag_validation_accuracy", 100, 2),
        "validation %, recalibrated": ("batchnorm_lag_validation_accuracy_recalibrated", 100, 2),
        "test %, last epoch": ("test_accuracy_last_epoch", 100, 2),
        "test %, best epoch": ("test_accuracy", 100, 2),
    }
    rows = []
    for rate, variant in (("constant", "resnet"), ("falling", "resnet_falling")):
        content = read(f"{CLASSIFY}.{variant}")
        for index, seed in enumerate(content["seeds"]):
            shown = [
                f"{factor * content['metrics'][name]['values'][index]:.{digits}f}"
                for name, factor, digits in columns.values()
            ]
            rows.append([rate, str(seed), *shown])
    return markdown_table(["rate", "seed", *columns], rows)


def tp3_examined() -> str:
    """Accuracy under corruptions of the networks that were examined."""
    columns = [
        Column("clean", "accuracy_clean", 100, 1),
        *(Column(kind, f"accuracy_{kind.replace(' ', '_')}", 100, 1) for kind in CORRUPTIONS),
        Column("mean over corruptions", "mean_corruption_accuracy", 100, 1),
    ]
    title, main = "test % on 2,000 images", "accuracy_clean"
    rows = [CNN, Row("Mini-ResNet, falling learning rate", FALLING.file), *FASTS]
    return table_of(rows, columns, title, main, floors_from=(), turned=True)


def tp3_race() -> str:
    """The race to the final accuracy of the hand-out's CNN."""
    content = read("bench.cifar_time_to_accuracy")
    rows = [
        [recipe["label"], spread(recipe["seconds"], digits=0), spread(recipe["test_accuracy"], 100)]
        for recipe in content["recipes"].values()
    ]
    rows.append(["times as fast", spread(content["ratio_fast_over_plain"], digits=1), ""])
    return f"{markdown_table(['recipe', 'seconds', 'test % then'], rows)}\n{machines([content])}\n"


def tp3_style() -> str:
    """Losses and similarity of style transfer with two feature networks."""
    found = [read(f"{STYLE}.{variant}") for variant in ("vgg19_distilled", "cifar10_net")]
    rows = []
    for name, label, floor in (
        ("style_loss", "style loss", "style_loss_of_content"),
        ("content_loss", "content loss", "content_loss_of_style"),
        ("ssim_content", "SSIM against the content", "ssim_of_style"),
        ("difference_from_content", "mean absolute difference from the content", ""),
        ("difference_from_style", "mean absolute difference from the style", ""),
        ("largest_rise", "largest rise of the loss within a size", ""),
    ):
        rows.append([label])
        for content in found:
            rows[-1].append(spread(content["metrics"][name], digits=3))
            rows[-1].append(f"{content['floors'][floor]:.3f}" if floor else "")
    first, second = (spread(content["train_seconds"], digits=0) for content in found)
    rows.append(["seconds", first, "", second, ""])
    other = "the other picture"
    heads = ["", "distilled VGG-19, ImageNet", other, "our CIFAR-10 network", other]
    return f"{markdown_table(heads, rows)}\n{machines(found)}\n"


def tp3_masks() -> str:
    """The segmentation demonstration: two networks beside their floors."""
    content = read(SEGMENT)
    metrics, floors = content["metrics"], content["floors"]
    columns = {
        "iou": "IoU, mean of three shapes",
        "pixel_accuracy": "pixels right",
        "contour_accuracy": "contours right",
        "shape_iou": "IoU, shape or background",
    }
    rows = [
        ["floor: all background", "", f"{floors['background_pixel_accuracy']:.3f}", "", ""],
        ["floor: colour threshold", "", "", "", f"{floors['colour_shape_iou']:.3f}"],
        ["the truth at 6x6 pixels", f"{metrics['truth_at_6x6_iou']['mean']:.3f}", "", "", ""],
    ]
    for name in ("without_skip", "with_skip"):
        figures = [spread(metrics[f"{key}_{name}"], digits=3) for key in columns]
        rows.append([name.replace("_", " "), *figures])
    return markdown_table(["", *columns.values()], rows)


def tp3_boxes() -> str:
    """The box demonstration: a detector beside its floors."""
    content = read(BOXES)
    metrics, floors = content["metrics"], content["floors"]
    columns = {
        "box_ap": ("average precision of boxes", 3),
        "ap": ("of boxes with classes", 3),
        "iou": ("IoU of true boxes", 3),
        "boxes_per_image": ("boxes per image", 1),
    }
    rows = [
        [label, *(f"{floors[f'{name}_{key}']:.3f}" for key in columns)]
        for name, label in (
            ("mean", "floor: mean box"),
            ("colour", "floor: areas of another colour"),
        )
    ]
    for prefix, label in (
        ("unsuppressed_", "detector, all cells' boxes"),
        ("", "detector, suppressed"),
    ):
        shown = [spread(metrics[prefix + key], digits=d) for key, (_, d) in columns.items()]
        rows.append([label, *shown])
    rows.append(["the truth", "", "", "", f"{metrics['true_boxes_per_image']['mean']:.1f}"])
    return markdown_table(["", *(heading for heading, _ in columns.values())], rows)


TABLES = {
    function.__name__: function
    for function in (
        tp3_accuracy, tp3_recalibration, tp3_examined, tp3_race, tp3_style, tp3_masks, tp3_boxes,
    )
}  # fmt: skip
