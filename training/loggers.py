"""Loggers: callbacks that write the metrics of each epoch, and the rate and dropped fraction of every site."""

import contextlib
import csv
import importlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dropzoo import models
from dropzoo.common.files import whole_file
from dropzoo.models.graph.walk import graph_of
from dropzoo.models.names import named_layers
from dropzoo.training.supervision import DeepSupervision

_MASKS = 8  # drawn at each site to measure what it drops
_EXAMPLES = 8


def site_logs(model: keras.Model, images: Any = None) -> dict[str, float]:
    """Returns the live rate and the measured dropped fraction of every dropout site of a model.

    The measurement is that of `models.dropout_report`, which changes neither the weights nor the seeds of the
    model, so a run with loggers ends exactly like a run without them.

    Args:
        model: The model that is trained. Without a graph, it has rates only.
        images: Inputs to measure with (only the first 8 are used); None for random ones.

    Returns:
        Dict with the keys `"rate/<site>"` and `"dropped/<site>"`.

    Example:
    >>> from dropzoo import models
    >>> from dropzoo.training.loggers import site_logs
    >>> model = models.build_model("lenet5", dropout={"dense1": 0.5})
    >>> {name: round(value, 1) for name, value in site_logs(model).items()}
    {'rate/dense1': 0.5, 'dropped/dense1': 0.5}
    """
    model = model.original if isinstance(model, DeepSupervision) else model
    if not named_layers(model):
        return {}
    few = None if images is None else keras.tree.map_structure(lambda leaf: leaf[:_EXAMPLES], images)
    found: dict[str, float] = {}
    if graph_of(model) is not None:
        rows = [(row.site, row.rate, row.dropped) for row in models.dropout_report(model, few, _MASKS)]
    else:  # no graph, so no places: the layers still have rates
        rows = [(each.site, each.random.rate, None) for each in named_layers(model)]
    for site, rate, dropped in rows:
        found |= {f"rate/{site}": float(rate)} if rate is not None else {}
        found |= {f"dropped/{site}": float(dropped)} if dropped is not None else {}
    return found


class CSVLogger(keras.callbacks.Callback):
    """Writes a CSV file with a row for each epoch: all metrics, and the rate and dropped fraction of every site.

    The file is complete after each epoch. A resumed run continues the file, and replaces the rows of epochs that
    are trained again. `keras.callbacks.CSVLogger` does not replace such rows, and does not log the sites.

    Args:
        path: Path of the file.
        images: Inputs to measure the dropped fractions with; None for random ones.

    Example:
    >>> import pathlib, tempfile, numpy as np
    >>> from dropzoo import models, training
    >>> model = models.build_model("lenet5", input_shape=(28, 28, 1), num_classes=2, dropout={"dense1": 0.5})
    >>> path = f"{tempfile.mkdtemp()}/log.csv"
    >>> data = (np.ones((4, 28, 28, 1)), np.array([0, 1, 0, 1]))
    >>> history = training.Trainer(model).fit(data, callbacks=[training.CSVLogger(path)], verbose=0)
    >>> pathlib.Path(path).read_text().splitlines()[0]
    'epoch,accuracy,loss,rate/dense1,dropped/dense1'
    """

    def __init__(self, path: str | Path, images: Any = None) -> None:
        super().__init__()
        self.path, self._images = Path(path), images
        self._rows: list[dict[str, Any]] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._rows = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._rows is None:  # the epoch in which the run continues is known only here
            self._rows = [row for row in _read(self.path) if int(row["epoch"]) < epoch] if epoch else []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        rows = self._rows = [*(self._rows or ()), {"epoch": epoch, **_numbers(self.model, logs, self._images)}]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with whole_file(self.path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


class TensorBoardLogger(keras.callbacks.TensorBoard):
    """Keras' `TensorBoard` callback, which also logs the rate and the dropped fraction of every site.

    It needs the package tensorboard: `pip install '.[track]'`. Look at the curves with
    `tensorboard --logdir FOLDER`.

    Args:
        folder: Folder of the logs.
        images: Inputs to measure the dropped fractions with; None for random ones.
        options: Further arguments of `keras.callbacks.TensorBoard`. The graph is written only with
            `write_graph=True`.

    Raises:
        ImportError: If the package is missing.
    """

    def __init__(self, folder: str | Path, images: Any = None, **options: Any) -> None:
        _needed("tensorboard")
        super().__init__(str(folder), **{"write_graph": False, **options})
        self._images = images

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not _is_unfinished(self):
            super().on_epoch_end(epoch, _numbers(self.model, logs, self._images))


class MLflowLogger(keras.callbacks.Callback):
    """Writes the metrics of each epoch to MLflow, with the rate and the dropped fraction of every site.

    It needs the package mlflow: `pip install '.[track]'`. If an MLflow run is active, the callback logs to this
    run. Otherwise it starts a run and ends it after training. If training failed and left a run of this callback
    open, the callback ends that run and starts a new one. The server is set by `mlflow.set_tracking_uri`, or by
    the environment variable `MLFLOW_TRACKING_URI`.

    Args:
        params: Dict of settings to log at the start, or None.
        images: Inputs to measure the dropped fractions with; None for random ones.
        name: Str, the name of the MLflow run; None for a name that MLflow generates.
        id_file: Path of a file that stores the id of the MLflow run. Resumed training continues this run if MLflow
            still has it. None starts a new run each time.

    Raises:
        ImportError: If the package is missing.
    """

    _open: str | None = None  # the id of the run that a logger has begun and not yet ended

    def __init__(
        self,
        params: Mapping[str, Any] | None = None,
        images: Any = None,
        name: str | None = None,
        id_file: str | Path | None = None,
    ) -> None:
        super().__init__()
        self._mlflow = _needed("mlflow")
        self._params, self._images, self._name = dict(params or {}), images, name
        self._id_file = None if id_file is None else Path(id_file)
        self._begun = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        active = self._mlflow.active_run()
        if active is not None and active.info.run_id == MLflowLogger._open:  # left open when training failed
            self._mlflow.end_run("FAILED")
            active = None
        self._begun = False
        if active is None:
            run, again = self._started()
            self._begun, MLflowLogger._open = True, run.info.run_id
            if again:
                return
        else:
            run = active
        try:
            self._mlflow.log_params({name: str(value)[:500] for name, value in self._params.items()})
        except self._mlflow.exceptions.MlflowException:
            if active is None:  # an active run keeps other values from earlier training
                raise
        if self._id_file is not None:
            with whole_file(self._id_file) as unfinished:
                unfinished.write_text(run.info.run_id, encoding="utf-8")

    def _started(self) -> tuple[Any, bool]:
        """Starts the run of the id file, or a new run; returns the run, and whether it is that of the file."""
        if self._id_file is not None and self._id_file.exists():
            known = self._id_file.read_text(encoding="utf-8").strip()
            with contextlib.suppress(self._mlflow.exceptions.MlflowException):  # deleted, or of another server
                return self._mlflow.start_run(run_id=known), True
        return self._mlflow.start_run(run_name=self._name), False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if _is_unfinished(self):
            return
        numbers = _numbers(self.model, logs, self._images)
        # MLflow takes letters, digits, spaces and _ - . / in names.
        clean = {re.sub(r"[^\w\-./ ]", "_", name): value for name, value in numbers.items()}
        self._mlflow.log_metrics(clean, step=epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._begun:
            self._mlflow.end_run()
            self._begun, MLflowLogger._open = False, None


def _is_unfinished(callback: keras.callbacks.Callback) -> bool:
    """Returns whether the `Trainer` was stopped within the epoch, whose metrics are those of a part of it."""
    return bool((callback.params or {}).get("unfinished"))


def _numbers(model: keras.Model, logs: Mapping[str, Any] | None, images: Any) -> dict[str, float]:
    """Returns the metrics that are single numbers, and the figures of the sites."""
    single = {name: float(value) for name, value in (logs or {}).items() if np.ndim(value) == 0}
    return {**single, **site_logs(model, images)}


def _read(path: Path) -> Sequence[dict[str, Any]]:
    """Returns the rows of a log, or nothing if there is none that can be read."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return rows if rows and rows[0].get("epoch", "").isdigit() else []


def _needed(package: str) -> Any:
    """Returns a module, or raises an ImportError that says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ImportError(f"The package {package} is missing. Install it: pip install '.[track]'") from None
