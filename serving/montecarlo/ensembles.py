"""Alternatives to Monte-Carlo dropout with the same statistics: their base class, and deep ensembles."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo.models.graph.record import load_model
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.active import TRACING
from dropzoo.serving.montecarlo.calibrated import answered, check_calibration, tempered
from dropzoo.serving.montecarlo.inputs import InputsLike, emptied, filled
from dropzoo.serving.montecarlo.kinds import saved_loss
from dropzoo.serving.montecarlo.outputs import joined
from dropzoo.serving.montecarlo.reader import Reader, Said, Tasks
from dropzoo.serving.montecarlo.statistics import Sums

#: Function from the inputs of a model, in order, to its outputs as probabilities or values.
Pass = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class Rival:
    """Base class of the alternatives. It computes the statistics of a few deterministic passes from running sums.

    Args:
        readers: The models of the passes, all with the same inputs and outputs.
        passes: Functions from the inputs to the outputs as probabilities or values.
        task: Output kinds, as for `MonteCarlo`.
        from_logits: Whether the outputs are logits, as for `MonteCarlo`.
        calibration: A `Calibration` that `calibrate` fitted for these passes, or None.

    Attributes:
        readers: The models of the passes, which know their inputs and what their outputs mean.
        transforms: The names of the transforms of the passes; empty if each pass sees the image as it is.
    """

    transforms: tuple[str, ...] = ()

    def __init__(
        self,
        readers: Sequence[Reader],
        passes: Sequence[Pass],
        task: Tasks,
        from_logits: Said = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.reader, self.model = readers[0], readers[0].model
        self.from_logits, self.calibration = from_logits, calibration
        self.task: Any = readers[0].task if task is None and readers[0].known else task
        self.num_samples = len(passes)
        self.readers, self._passes = list(readers), list(passes)
        self._traced: list[Any] = []

    def __call__(self, images: InputsLike) -> Any:
        checked = self._ready(images)
        return emptied(self._statistics(self._traced, filled(checked)), checked)

    def each(self, images: InputsLike) -> list[list[tf.Tensor]]:
        """Returns the outputs of each pass, `(batch, ..., classes)`, at the temperature of the calibration.

        Args:
            images: One batch of the inputs, as Keras takes them.
        """
        checked = self._ready(images)
        return [one(checked) for one in self._traced]

    def _ready(self, images: InputsLike) -> list[tf.Tensor]:
        """Returns a batch as tensors, after the passes have been traced."""
        checked = [reader.check(images) for reader in self.readers][0]
        if not self._traced:
            self._check_known()
            functions = [self.reader.traced(one) for one in self._passes]
            with TRACING:  # Monte-Carlo sampling of the same model may be traced in another thread
                for function in functions:
                    function.get_concrete_function(checked)
            self._traced = functions
        return checked

    def sample(self, images: InputsLike) -> Any:
        """Returns the same statistics as a call, for use inside a graph.

        Args:
            images: Tensors of one batch, as Keras takes them.

        Raises:
            ValueError: If a subclassed model has not been called yet, so that its inputs are not known.
        """
        if not all(reader.known for reader in self.readers):
            raise ValueError(
                "The inputs of a subclassed model are not known before its first call: call it on one batch first"
            )
        return self._statistics(self._passes, self.reader.inputs.check(images))

    def _statistics(self, passes: Sequence[Pass], flat: list[tf.Tensor]) -> Any:
        outputs = self.reader.outputs
        sums = [Sums.zero(output) for output in outputs]
        for one in passes:
            found = zip(sums, one(flat), outputs, strict=True)
            sums = [each.add(p[None], output.kind) for each, p, output in found]  # (1, batch, ..., classes)
        answers = [each.statistics(self.num_samples, o) for each, o in zip(sums, outputs, strict=True)]
        return answered(joined(answers, self.reader.names), self.calibration)

    def _check_known(self) -> None:
        """Checks the inputs and outputs of all models, once they are known."""
        if self.calibration is not None:
            check_calibration(self.calibration, self.readers, self.num_samples, None, self.transforms)


class Ensemble(Rival):
    """Averages a deep ensemble: models that were trained in the same way from different initial weights.

    An ensemble is the usual reference for the quality of uncertainty estimates. With M members, training, memory
    and inference cost M times as much. The statistics are the same as those of `MonteCarlo`, with members instead
    of samples: the variance divides by M, and the mutual information measures how much the members disagree.
    Dropout is off.

    Args:
        models: List of members: models, `.keras` files, or folders that `export_model` wrote. All members have
            the same shapes of inputs and outputs. The loss in a file, or the `info.json` of a folder, determines
            the task, as the loss of a model does.
        task: The meaning of the outputs, as for `MonteCarlo`.
        from_logits: Whether the outputs are logits, as for `MonteCarlo`.
        calibration: A `Calibration` that `calibrate` fitted for these members in this order, as for `MonteCarlo`.

    Call arguments:
        images: One batch of the inputs, as Keras takes them.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`. For several outputs, a dict of such dicts by
        the names of the first member's outputs.

    Raises:
        ValueError: If there are no members, they do not fit each other or the task, or a path holds no model.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> members = [models.build_model("simple_cnn", filters=(4,)) for _ in range(3)]
    >>> ensemble = serving.Ensemble(members)
    >>> out = ensemble(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))

    Reference:
        Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", 2017, arXiv:1612.01474
    """

    def __init__(
        self,
        models: Sequence[keras.Model | str | os.PathLike],
        task: Tasks = None,
        from_logits: Said = None,
        calibration: Calibration | None = None,
    ) -> None:
        if not isinstance(models, (list, tuple)) or not models:
            raise ValueError(f"`models` must be a list of at least one model or path. Received: {models!r}")
        members = [(each, None) if isinstance(each, keras.Model) else _load(each) for each in models]
        self.models = [model for model, _ in members]
        readers = [Reader(model, known if task is None else task, from_logits) for model, known in members]
        super().__init__(
            readers, [answer_of(each, calibration) for each in readers], task, from_logits, calibration
        )
        if all(reader.known for reader in readers):
            self._check_known()

    def _check_known(self) -> None:
        first = _shapes(self.readers[0])
        for i, reader in enumerate(self.readers):
            if _shapes(reader) != first:
                raise ValueError(
                    "The members must have the same shapes of input and output. "
                    f"Received: {first} for the first, {_shapes(reader)} for number {i + 1}"
                )
            if _kinds(reader) != _kinds(self.readers[0]):
                raise ValueError(
                    "The outputs of all members must have the same task; pass `task`. Received: "
                    f"{self.readers[0].task!r} for the first, {reader.task!r} for number {i + 1}"
                )
        super()._check_known()


def _load(path: str | os.PathLike) -> tuple[keras.Model, list[str] | None]:
    """The model in a `.keras` file or in the folder of an export, and the output kinds that the folder records."""
    if isinstance(path, (str, os.PathLike)):
        folder = Path(path) / "assets.extra"
        for file, info in ((Path(path), None), (folder / "model.keras", folder / "info.json")):
            if file.is_file() and file.suffix == ".keras":
                return _with_loss(file), _exported_kinds(info)
    raise ValueError(
        "Expected a model, a .keras file or a folder that export_model wrote. Load any other file yourself, with "
        f"keras.models.load_model, and pass the model. Received: {path!r}"
    )


def _with_loss(file: Path) -> keras.Model:
    """The model in a `.keras` file with the loss that shows its task, and without the weights of its optimizer."""
    model, loss = load_model(file, compile=False), saved_loss(file)
    if loss is not None:
        keras.Model.compile(model, loss=loss)
    return model


def _exported_kinds(info: Path | None) -> list[str] | None:
    """The output kinds in the `info.json` of an export, in order; None if there is no such file."""
    if info is None or not info.is_file():
        return None
    return [output["task"] for output in json.loads(info.read_text(encoding="utf-8"))["outputs"]]


def _kinds(reader: Reader) -> list[str]:
    """The output kinds of a model; a single logit of classes is a binary output."""
    pairs = [(output.kind, output.classes) for output in reader.outputs]
    return ["binary" if pair == ("multi_class", 1) else pair[0] for pair in pairs]


def _shapes(reader: Reader) -> tuple[Any, Any]:
    """The shapes of the inputs and of the outputs of a model; of a single one, only its shape."""
    outputs = tuple(output.shape for output in reader.outputs)
    found = [each[0] if len(each) == 1 else each for each in (reader.inputs.shapes, outputs)]
    return found[0], found[1]


def answer_of(reader: Reader, calibration: Calibration | None = None) -> Pass:
    """Returns the function from inputs to outputs as probabilities or values, at the temperature of a calibration.

    Args:
        reader: The model.
        calibration: The calibration, or None.
    """
    return lambda flat: tempered(reader.read(reader.call(flat)), calibration)
