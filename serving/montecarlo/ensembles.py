"""Alternatives to Monte-Carlo dropout with the same statistics: their base class, and deep ensembles."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import check_seed
from dropzoo.models.graph.record import load_model
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.calibrated import check_calibration, check_sites, is_of_samples
from dropzoo.serving.montecarlo.inputs import InputsLike, emptied, filled
from dropzoo.serving.montecarlo.kinds import saved_loss
from dropzoo.serving.montecarlo.members import MemberSamples, samplers_of, seed_of_member
from dropzoo.serving.montecarlo.passes import Passes, answer_of
from dropzoo.serving.montecarlo.reader import Reader, Said, Tasks
from dropzoo.serving.montecarlo.sampler import MonteCarlo

_SAMPLING = "balanced"


class Rival:
    """Base class of the alternatives. It computes the statistics of a few passes, or of samples of several models.

    Args:
        readers: The models of the passes, all with the same inputs and outputs.
        passes: The passes or the samples, which compute the statistics.
        task: Output kinds, as for `MonteCarlo`.
        from_logits: Whether the outputs are logits, as for `MonteCarlo`.
        calibration: A `Calibration` that `calibrate` fitted for these passes, or None.

    Attributes:
        readers: The models of the passes, which know their inputs and what their outputs mean.
        num_samples: Int, the number of passes or samples.
        sampling: Str, how masks are drawn; None if nothing drops.
        samplers: List of the `MonteCarlo` of each model; empty if nothing drops.
        transforms: The names of the transforms of the passes; empty if each pass sees the image as it is.
    """

    samplers: Sequence[MonteCarlo] = ()
    transforms: tuple[str, ...] = ()

    def __init__(
        self,
        readers: Sequence[Reader],
        passes: Passes | MemberSamples,
        task: Tasks,
        from_logits: Said = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.reader, self.model = readers[0], readers[0].model
        self.from_logits, self.calibration = from_logits, calibration
        self.task: Any = readers[0].task if task is None and readers[0].known else task
        self.num_samples, self.sampling = passes.count, passes.sampling
        self.readers, self._passes = list(readers), passes
        self._is_traced = False

    def __call__(self, images: InputsLike) -> Any:
        checked = self._ready(images)
        return emptied(self._passes.statistics(filled(checked)), checked)

    def each(self, images: InputsLike) -> list[list[tf.Tensor]]:
        """Returns the outputs of each pass or sample, `(batch, ..., classes)`, at the calibration's temperature.

        Args:
            images: One batch of the inputs, as Keras takes them.

        Returns:
            A list with one list of outputs for each pass or sample; the samples of a member follow each other.
        """
        checked = self._ready(images)
        return emptied(self._passes.each(filled(checked)), checked)

    def _ready(self, images: InputsLike) -> list[tf.Tensor]:
        """Returns a batch as tensors, after the passes have been traced."""
        checked = [reader.check(images) for reader in self.readers][0]
        if not self._is_traced:
            self._check_known()
            self._passes.trace(filled(checked))
            self._is_traced = True
        return checked

    def sample(self, images: InputsLike, plain: bool = False) -> Any:
        """Returns the same statistics as a call, for use inside a graph.

        Args:
            images: Tensors of one batch, as Keras takes them.
            plain: Bool, whether to use only operations that run without XLA.

        Raises:
            ValueError: If a subclassed model has not been called yet, so that its inputs are not known.
        """
        if not all(reader.known for reader in self.readers):
            raise ValueError(
                "The inputs of a subclassed model are not known before its first call: call it on one batch first"
            )
        return self._passes.sample(self.reader.inputs.check(images), plain)

    def _check_known(self) -> None:
        """Checks the inputs and outputs of all models, once they are known."""
        if self.calibration is not None:
            check_calibration(self.calibration, self.readers, self.num_samples, self.sampling, self.transforms)


class Ensemble(Rival):
    """Averages a deep ensemble: models that were trained in the same way from different initial weights.

    An ensemble is the usual reference for the quality of uncertainty estimates. With M members, training, memory
    and inference cost M times as much. The statistics are the same as those of `MonteCarlo`, with members instead
    of samples: the divisor of the variance is M, and the mutual information measures how much the members
    disagree. Dropout is off, unless you pass `num_samples`.

    With `num_samples=T`, each member draws T / M Monte-Carlo samples with its dropout on, and all T samples enter
    the statistics with equal weight. They are the samples of M `MonteCarlo` objects (`samplers`). Member `i`, from
    0, draws its masks with the seed `(seed + 2654435761 * i) % 2**32`, so members have different masks, and an
    ensemble of one model answers as a `MonteCarlo` of it does. Balanced samples are balanced within each member.
    The members are computed one after another. In each member, layers that do not depend on active dropout are
    computed once, and its samples are added up and not stored.

    Args:
        models: List of members: models, `.keras` files, or folders (`NAME/VERSION`) that `export_model` wrote for
            a single model. All members have the same shapes of inputs and outputs. The loss of a model or of a
            file, or the `info.json` of a folder, determines the task.
        task: Str or None, the output kind, as for `MonteCarlo`. None means that of the members.
        from_logits: Bool or None, whether the outputs are logits, as for `MonteCarlo`.
        calibration: A `Calibration` that `calibrate` fitted for these members in this order, as for `MonteCarlo`.
            If it was fitted to samples, it sets their number, the sampling, and the sites that drop.
        num_samples: Int, the number T of samples of all members together, which must be a multiple of the number
            of members. None averages the members without dropout.
        sampling: With `num_samples`, how masks are drawn, as for `MonteCarlo`: `"balanced"`, `"independent"` or
            `"fixed"`.
        seed: Int in [0, 2**32), with `num_samples` the seed of the masks. You can set `ensemble.seed` later
            without retracing the members.

    Call arguments:
        images: One batch of the inputs, as Keras takes them.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`. For several outputs, a dict of such dicts by
        the names of the first member's outputs.

    Raises:
        ValueError: If there are no members, they do not fit each other or the task, a path holds no model,
            `num_samples` is not a multiple of the number of members, a member has no dropout to sample, or
            `sampling` or `seed` is given without `num_samples`.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> members = [models.build_model("simple_cnn", filters=(4,)) for _ in range(3)]
    >>> ensemble = serving.Ensemble(members)
    >>> out = ensemble(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))
    >>> members = [models.build_model("simple_cnn", filters=(4,), dropout={"dense1": 0.5}) for _ in range(3)]
    >>> ensemble = serving.Ensemble(members, num_samples=12)
    >>> ensemble(np.zeros((2, 28, 28, 1), "float32"))["mean"].shape, ensemble.samplers[0].num_samples
    (TensorShape([2, 10]), 4)

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
        *,
        num_samples: int | None = None,
        sampling: str = _SAMPLING,
        seed: int = 0,
    ) -> None:
        if not isinstance(models, (list, tuple)) or not models:
            raise ValueError(f"`models` must be a list of at least one model or path. Received: {models!r}")
        sites = None
        if calibration is not None and is_of_samples(calibration, len(models)):
            num_samples = calibration.facts.num_samples if num_samples is None else num_samples
            sampling = calibration.facts.sampling or sampling if sampling == _SAMPLING else sampling
            sites = dict(calibration.sites)
        if num_samples is None and (sampling, seed) != (_SAMPLING, 0):
            raise ValueError(
                "`sampling` and `seed` are for samples with dropout: pass `num_samples` too, or leave them out. "
                f"Received: sampling={sampling!r}, seed={seed!r}"
            )
        members = [(each, None) if isinstance(each, keras.Model) else _load(each) for each in models]
        self.models = [model for model, _ in members]
        tasks = [known if task is None else task for _, known in members]
        passes: Passes | MemberSamples
        if num_samples is None:
            pairs = zip(self.models, tasks, strict=True)
            readers = [Reader(model, kind, from_logits) for model, kind in pairs]
            passes = Passes(readers[0], [answer_of(each, calibration) for each in readers], calibration)
        else:
            if calibration is not None and sites is not None:
                check_sites(calibration, self.models[0])
            self.samplers = samplers_of(self.models, tasks, from_logits, num_samples, sampling, sites, seed)
            readers = [each.reader for each in self.samplers]
            passes = MemberSamples(self.samplers, calibration)
        super().__init__(readers, passes, task, from_logits, calibration)
        if all(reader.known for reader in readers):
            self._check_known()

    @property
    def seed(self) -> int:
        """The seed of the masks, an int in [0, 2**32); 0 without dropout.

        With dropout, you can set it without retracing. Without dropout, setting it raises a ValueError.
        """
        return self.samplers[0].seed if self.samplers else 0

    @seed.setter
    def seed(self, value: int) -> None:
        if not self.samplers:
            raise ValueError(
                f"`seed` is for an ensemble with dropout: create it with `num_samples`. Received: seed={value!r}"
            )
        check_seed(value)
        for number, each in enumerate(self.samplers):
            each.seed = seed_of_member(value, number)

    @property
    def without_dropout(self) -> Rival:
        """The average of the same members with their dropout off, and without the calibration of the samples."""
        if not self.samplers:
            return self
        passes = Passes(self.reader, [answer_of(each) for each in self.readers], None)
        return Rival(self.readers, passes, self.task, self.from_logits)

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


def samplers_behind(predictor: MonteCarlo | Rival | None) -> Sequence[MonteCarlo]:
    """Returns the samplers of a predictor: of its model, or of each member; none if nothing drops.

    Args:
        predictor: The predictor, or None.
    """
    if isinstance(predictor, MonteCarlo):
        return [predictor]
    return () if predictor is None else predictor.samplers


def _load(path: str | os.PathLike) -> tuple[keras.Model, list[str] | None]:
    """The model in a `.keras` file or in the folder of an export, and the output kinds that the folder records."""
    if isinstance(path, (str, os.PathLike)):
        folder = Path(path) / "assets.extra"
        for file, info in ((Path(path), None), (folder / "model.keras", folder / "info.json")):
            if file.is_file() and file.suffix == ".keras":
                return _with_loss(file), _exported_kinds(info)
    raise ValueError(
        "Expected a model, a .keras file, or a folder NAME/VERSION that export_model wrote for a single model. "
        "Load any other file yourself, with keras.models.load_model, and pass the model. "
        f"Received: {path!r}"
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
