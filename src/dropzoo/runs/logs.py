"""The loggers of a run, by name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from dropzoo import training
from dropzoo.common.checks import unknown
from dropzoo.runs.config import RunConfig
from dropzoo.runs.inputs import fed

#: The loggers by their names; each takes the folder of the run, its config and images to measure with.
LOGGERS: dict[str, Callable[[Path, RunConfig, Any], keras.callbacks.Callback]] = {
    "csv": lambda out, config, images: training.CSVLogger(out / "log.csv", images),
    "tensorboard": lambda out, config, images: training.TensorBoardLogger(out / "tensorboard", images),
    "mlflow": lambda out, config, images: training.MLflowLogger(
        config.to_json(), images, out.resolve().name, out / "mlflow_run.txt"
    ),
}


def parse_log(value: str | None) -> tuple[str, ...]:
    """Reads `--log`: names of `LOGGERS`, separated by commas.

    Raises:
        ValueError: If there is no such logger.
    """
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    for name in names:
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
    return names


def loggers_of(
    names: Sequence[str], out: Path, config: RunConfig, data: training.Data, model: keras.Model
) -> list[Any]:
    """Returns the callbacks of a run that log its course.

    Args:
        names: Names of `LOGGERS`.
        out: The folder of the run.
        config: The config of the run.
        data: Its data; the first training images, as the model gets them, show how much each site drops.
        model: Its model.

    Raises:
        ValueError: If the package of a logger is missing.
    """
    if not names:
        return []
    # Cropped as in the training: whole images may not fit into memory.
    images = next(iter(fed(data.train, model).at_epoch(0)))[0][:8]
    try:
        return [LOGGERS[name](out, config, images) for name in names]
    except ImportError as error:
        raise ValueError(str(error)) from None
