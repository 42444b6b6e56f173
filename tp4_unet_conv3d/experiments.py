"""TP4's figures: how they are made, what they must reach, how README.md shows them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from labkit import results
from labkit.experiments import Column, Experiment, Gate, Row, findings, table_of

SEGMENT = "tp4_unet_conv3d.unet_segmentation"
EXAMINE = "tp4_unet_conv3d.evaluate"
LOSSES = "tp4_unet_conv3d.loss_comparison"
HELICES = "tp4_unet_conv3d.conv3d_analysis"
VOLUMES = "tp4_unet_conv3d.volume_segmentation"
TUBES = f"{VOLUMES}.tubes"
FLOORS = ("all_background", "constant_mask", "threshold", "otsu", "local_contrast")
ABOVE = tuple(f"floor_{name}" for name in FLOORS)

EXPERIMENTS = (
    Experiment(
        SEGMENT, "cells", then=EXAMINE, data="sample",
        gates=(Gate("dice", 0.90, 0.99, above=ABOVE),),
    ),
    Experiment(SEGMENT, "cells_handout", ("--width", "32"), (0,), EXAMINE, data="sample"),
    Experiment(
        SEGMENT, "mri", then=EXAMINE,
        gates=(Gate("dice", 0.75, 0.90, above=ABOVE),),
    ),
    Experiment(SEGMENT, "mri_complete", ("--mri-slices", "3929"), then=EXAMINE),
    Experiment(LOSSES, data="sample", comparison=True),
    Experiment(
        HELICES, data="auto", comparison=True,
        gates=(
            Gate(
                "conv3d/test_accuracy", 0.95, 1.00,
                above=("floor_majority", "floor_logistic_regression"),
            ),
            Gate("slices/test_accuracy", 0.40, 0.60),  # proved: 0.5
        ),
    ),
    Experiment(
        VOLUMES, "tubes", data="sample", comparison=True,
        gates=(
            Gate("volumes/dice", 0.70, 0.99, above=(*ABOVE, "slices/dice")),
        ),
    ),
    Experiment(VOLUMES, "mri_volumes", comparison=True),
)  # fmt: skip


@dataclass(frozen=True)
class Told(Column):
    """A cell that is made of several metrics."""

    tell: Callable[[dict[str, Any]], str] = str

    def cell(self, found: dict[str, Any]) -> str:
        """What `tell` makes of all metrics of a results file."""
        return self.tell(found)


class Examined(Row):
    """A row that can also give all metrics together."""

    def summary(self, metric: str) -> dict[str, Any] | None:
        """The summary of `metric`; of none, all of them by name."""
        return super().summary(metric) if metric else results.read(self.file)["metrics"]


def share(part: str, whole: str) -> Callable[[dict[str, Any]], str]:
    """Tells how many of how many, in the mean over seeds."""
    return lambda found: f"{found[part]['mean']:.1f} of {found[whole]['mean']:.0f}"


def first_interval(found: dict[str, Any]) -> str:
    """The interval of Dice over test images that the first seed has."""
    return f"{found['dice_low']['values'][0]:.3f} to {found['dice_high']['values'][0]:.3f}"


def masks(variants: dict[str, str]) -> str:
    """Segmentations beside their floors: Dice, what was missed, contours."""
    rows = [Examined(label, f"{SEGMENT}.{variant}") for variant, label in variants.items()]
    missed = share("small_objects_missed", "small_objects")
    kept = share("empty_images_kept_empty", "empty_images")
    columns = [
        Column("parameters", "parameters", digits=0, plain=True),
        Column("Dice", "dice", digits=3, bold=True),
        Told("95 % interval, first seed", "", tell=first_interval),
        Column("mirror images averaged", "dice_mirrored", digits=3),
        Column("IoU", "iou", digits=3),
        Told("small objects missed", "", tell=missed),
        Told("empty images kept empty", "", tell=kept),
        Column("contours F1", "boundary_f1", digits=3),
        Column("seconds", "train_seconds", digits=0),
    ]
    return table_of(rows, columns, main="dice")


def compared(file: str) -> list[str]:
    """The configurations of a stored comparison."""
    names = results.read(file)["metrics"]
    return list(dict.fromkeys(name.partition("/")[0] for name in names))


def losses() -> str:
    """Six losses on the same terms."""
    rows = [Row(loss.replace("_and_", "+"), LOSSES, loss) for loss in compared(LOSSES)]
    columns = [
        Column("Dice", "dice", digits=3),
        Column("IoU", "iou", digits=3),
        Column("Dice of small cells", "small_object_dice", digits=3),
        Column("small cells missed", "small_objects_missed", digits=1),
        Column("empty images kept empty", "empty_images_kept_empty", digits=1),
        Column("epochs to validation Dice 0.8", "epochs_to_dice_0.8", digits=1, absent="never"),
        Column("threshold", "threshold", digits=3),
    ]
    return table_of(rows, columns, "loss", main="dice")


def depths(file: str) -> str:
    """U-Nets of slices beside one of volumes."""
    labels = {
        "slices": "1x3x3, slice by slice",
        "wide_slices": "1x3x3, as many weights",
        "volumes": "3x3x3",
    }
    rows = [Row(labels[network], file, network) for network in compared(file)]
    columns = [
        Column("parameters", "parameters", digits=0, plain=True),
        Column("GFLOP per volume", "gigaflop_per_volume", plain=True),
        Column("Dice by volume", "dice", digits=3),
        Column("IoU", "iou", digits=3),
        Column("contours F1, slices", "boundary_f1", digits=3),
        Column("epochs to validation Dice 0.8", "epochs_to_dice_0.8", digits=1, absent="never"),
        Column("seconds to it", "seconds_to_dice_0.8", digits=0, absent="never"),
        Column("seconds", "train_seconds", digits=0),
    ]
    return table_of(rows, columns, "kernels", main="dice")


def volumes() -> str:
    """Conv3D beside the networks that see slices, and the floors."""
    rows = [Row(f"`{network}`", HELICES, network) for network in compared(HELICES)]
    columns = [
        Column("parameters", "parameters", digits=0, plain=True),
        Column("test %", "test_accuracy", 100, 1),
        Column("validation %", "validation_accuracy", 100, 1),
        Column("training %", "train_accuracy", 100, 1),
        Column("seconds", "train_seconds", digits=0),
    ]
    return table_of(rows, columns, "network", main="test_accuracy")


def cost() -> str:
    """Memory and time of a training step of Conv3D."""
    from tp4_unet_conv3d.conv3d_cost import cost_table

    return cost_table(results.read(HELICES)["details"]["cost"])


TABLES = {
    "tp4_cells": partial(
        masks, {"cells": "U-Net, 16 filters", "cells_handout": "the hand-out's, 32 filters"}
    ),
    "tp4_mri": partial(masks, {"mri": "U-Net, 16 filters"}),
    "tp4_losses": losses,
    "tp4_losses_findings": partial(findings, LOSSES),
    "tp4_tubes": partial(depths, TUBES),
    "tp4_tubes_findings": partial(findings, TUBES),
    "tp4_mri_volumes": partial(depths, f"{VOLUMES}.mri_volumes"),
    "tp4_mri_volumes_findings": partial(findings, f"{VOLUMES}.mri_volumes"),
    "tp4_volumes": volumes,
    "tp4_cost": cost,
}
