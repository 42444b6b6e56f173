"""The plumbing of the labs: arguments, data sets, runs, tracking, figures; never the lesson.

A lab's script reads `config = labkit.parse(Config)`, `data = labkit.load_mnist(config.data)` and
`with labkit.start_run(__file__, config, ...) as run:`; the model, the loss, `fit()` and the
conclusion stay in the script. Importing this package loads neither TensorFlow nor MLflow.
"""

from labkit import environment
from labkit.arguments import DataChoice, Settings, at_least, lazy, parse
from labkit.checkpoint import load_model
from labkit.datasets import Data, Images, Part, load_cifar10, load_mnist
from labkit.fan_out import fan_out
from labkit.files import DataError, Origin, obtain
from labkit.machine import fast_precision, home, prepare
from labkit.run import Run
from labkit.runs import examination, find_run, start_run

__all__ = [
    "Data",
    "DataChoice",
    "DataError",
    "Images",
    "Origin",
    "Part",
    "Run",
    "Settings",
    "at_least",
    "environment",
    "examination",
    "fan_out",
    "fast_precision",
    "find_run",
    "home",
    "lazy",
    "load_cifar10",
    "load_mnist",
    "load_model",
    "obtain",
    "parse",
    "prepare",
    "start_run",
]
