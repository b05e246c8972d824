"""The loggers of a run, by name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from dropzoo import training
from dropzoo.common.checks import unknown
from dropzoo.runs.config import RunConfig

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


def loggers_of(names: Sequence[str], out: Path, config: RunConfig, data: training.Data) -> list[Any]:
    """Returns the callbacks of a run that log its course.

    Args:
        names: Names of `LOGGERS`.
        out: The folder of the run.
        config: The config of the run.
        data: Its data; the first training images show how much each site drops.

    Raises:
        ValueError: If the package of a logger is missing.
    """
    if not names:
        return []
    images = next(iter(data.train.as_stored()))[0]
    try:
        return [LOGGERS[name](out, config, images) for name in names]
    except ImportError as error:
        raise ValueError(str(error)) from None
