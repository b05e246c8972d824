"""Predictors from a run's folder, an ensemble, a `.keras` file or a SavedModel."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dropzoo import layers, serving
from dropzoo.models.graph.order import shape_of_images
from dropzoo.models.graph.record import load_model, remember, taken_by
from dropzoo.runs.calibrations import export_folder, find_calibration
from dropzoo.runs.exported import Export, facts_of_export, pixels_of_export
from dropzoo.runs.inputs import feeding, settle_range
from dropzoo.runs.loading import load_run
from dropzoo.runs.members import ensemble_of, first_run, load_members
from dropzoo.runs.predictor import Predictor, is_of_pixels
from dropzoo.runs.statistics import Arrays, arranged
from dropzoo.serving.montecarlo.active import NothingDraws
from dropzoo.serving.montecarlo.reader import check_single


def load_predictor(
    path: Path | str | keras.Model,
    num_samples: int | None = None,
    seed: int = 0,
    input_range: tuple[float, float] | None = None,
    from_logits: bool | None = None,
    say: Callable[[str], None] = print,
    *,
    calibrated: bool = True,
    votes: bool = False,
    sampling: str = "balanced",
    task: str | None = None,
    value_range: tuple[float, float] | None = None,
) -> Predictor:
    """Loads a model that predicts image files.

    Args:
        path: Path of a run's folder, an ensemble's folder, a `.keras` file or a SavedModel; or a Keras model. For
            a folder with several versions of a SavedModel, the newest is loaded.
        num_samples: Positive int or None, the number of Monte-Carlo samples; None means 30. For an ensemble, it is
            the number for all members together, and None averages the members without dropout. A calibration sets
            its own number. So does a SavedModel unless `sampling` is `"fixed"`.
        seed: Int in [0, 2**32), the seed of the samples.
        input_range: Pair of floats `(low, high)` or None, the values of a black and of a white pixel that the
            model takes. None means the range that the model was trained on or that its layers imply, and otherwise
            `(0, 1)`.
        from_logits: Bool or None, whether the output of a Keras model is logits, as for `MonteCarlo`. A SavedModel
            knows this itself.
        say: Function that takes a line of text, such as a note about the range, and shows it.
        calibrated: Bool, whether to use the calibration of the model, if it has one.
        votes: Bool, whether answers also count the samples that vote for each class. A SavedModel and an ensemble
            do not count them.
        sampling: `"balanced"`, `"independent"` or `"fixed"`, as for `MonteCarlo`. Unless this is `"fixed"`, a
            calibration sets its own. Tiles (`predict_files(..., tile=...)`) and `dropzoo measure` need `"fixed"`;
            a SavedModel must then contain its Keras model.
        task: Str or None, the output kind, as for `MonteCarlo`. None means that of the model.
        value_range: Pair of floats `(low, high)` or None, the stored values that become 0 and 1, as for
            `load_data`. None means those of the training images.

    Returns:
        A `Predictor`, which `predict_files` takes as its model.

    Raises:
        ValueError: If `path` is none of these, or its model does not take one image and give one answer.

    Example:
    >>> import tempfile, numpy as np
    >>> from dropzoo import models
    >>> from dropzoo.runs.predictors import load_predictor
    >>> path = f"{tempfile.mkdtemp()}/cnn.keras"
    >>> models.build_model("simple_cnn", input_shape=(8, 8, 1), dropout={"dense1": 0.5}).save(path)
    >>> predictor = load_predictor(path, num_samples=4, input_range=(0, 1))
    >>> predictor.answer(np.zeros((8, 8, 1), "float32"))["mean"].shape
    (10,)
    """
    options: dict[str, Any] = {"seed": seed, "from_logits": from_logits, "return_samples": votes}
    drawn = {"num_samples": 30 if num_samples is None else num_samples, "sampling": sampling}
    if isinstance(path, keras.Model):
        check_single(path)
        settle_range(path, input_range, say)
        found = _from_keras(path, None, None, {**options, **drawn, "task": task})
        return dataclasses.replace(found, value_range=value_range)
    path = Path(path)
    names: tuple[str, ...] | None = None
    export = export_folder(path)
    inside = None if export is None else export / "assets.extra" / "model.keras"
    calibration = find_calibration(path, calibrated)
    if calibration is not None and sampling == "fixed" and calibration.facts.sampling is not None:
        # The draws differ, not what they are from.
        facts = dataclasses.replace(calibration.facts, sampling="fixed")
        calibration = dataclasses.replace(calibration, facts=facts)
    if (path / "run.json").exists() or (path / "ensemble.json").exists():
        models = load_members(path)
        _, config, info = load_run(first_run(path))
        names, value_range = info.class_names, value_range or config.value_range
        if len(models) > 1:
            for member in models:
                settle_range(member, input_range, say)
            how: dict[str, Any] = {"sampling": sampling, "seed": seed, "task": task, "from_logits": from_logits}
            ensemble = ensemble_of(models, num_samples, calibration=calibration, **how)
            return _from_members(ensemble, names, value_range)
        (model,) = models
    elif path.suffix == ".keras" and path.is_file():
        model = load_model(path)
    elif export is not None and not (sampling == "fixed" and inside is not None and inside.is_file()):
        if sampling == "fixed":
            raise ValueError(
                f"Tiles and measurements need samples of the whole image. Only the Keras model draws these, "
                f"and it is not in the export {path}. Pass the run or the .keras file"
            )
        if from_logits is not None:
            raise ValueError(
                f"An export already knows whether its output is logits. Leave out `from_logits` "
                f"(--from-logits, --probabilities) for {path}"
            )
        found = _from_saved_model(export, input_range, task)
        if num_samples not in (None, found.num_samples):
            does = f"draws {found.num_samples} samples" if found.num_samples > 1 else "answers in one pass"
            say(f"The export always {does}, so --mc {num_samples} changes nothing")
        if seed and found.num_samples > 1:
            say(f"The export has a seed of its own, so --seed {seed} changes nothing")
        return dataclasses.replace(found, value_range=value_range)
    elif export is not None and inside is not None:
        model = load_model(inside)
        said = facts_of_export(export)
        remember(model, pixels_of_export(export, said, input_range))
        names, input_range = tuple(said["class_names"]) if said.get("class_names") else None, None
        task = _task_of_export(export, said, task)
    else:
        raise ValueError(f"Expected a run's folder, a .keras file or a SavedModel. Received: {path}")
    check_single(model)
    settle_range(model, input_range, say)
    found = _from_keras(model, names, calibration, {**options, **({} if calibration else drawn), "task": task})
    if calibration and layers.dropouts(model) and num_samples not in (None, found.num_samples):
        made_for = "one pass" if found.num_samples == 1 else f"{found.num_samples} samples"
        say(
            f"The calibration is for {made_for}, so --mc {num_samples} changes nothing. Pass --no-calibration, or "
            f"calibrate again with --mc {num_samples} --sites as_is"
        )
    return dataclasses.replace(found, value_range=value_range)


def _from_members(
    ensemble: serving.Ensemble, class_names: tuple[str, ...] | None, value_range: tuple[float, float] | None
) -> Predictor:
    first, task = ensemble.models[0], str(ensemble.task)
    feed = feeding(first)

    def predict(images: np.ndarray) -> Arrays:
        return arranged({name: value.numpy() for name, value in ensemble(feed(images)).items()}, task)

    facts: dict[str, Any] = {"feed": feed, "sampler": ensemble, "calibration": ensemble.calibration}
    facts |= {"num_samples": ensemble.num_samples, "is_map": is_of_pixels(first.output_shape), "task": task}
    facts |= {"value_range": value_range}
    return Predictor(predict, shape_of_images(first), class_names, taken_by(first), **facts)


def _from_keras(
    model: keras.Model,
    class_names: tuple[str, ...] | None,
    calibration: serving.Calibration | None,
    options: dict[str, Any],
) -> Predictor:
    feed = feeding(model)
    facts: dict[str, Any] = {"feed": feed, "calibration": calibration}
    try:
        sample = serving.MonteCarlo(model, calibration=calibration, **options)
    except NothingDraws:
        one = serving.Ensemble([model], options["task"], options["from_logits"])
        reader, task = one.reader, str(one.task)
        run = reader.traced(lambda flat: reader.read(reader.call(flat)))

        def predict(images: np.ndarray) -> Arrays:
            (mean,) = run(reader.check(feed(images)))
            return arranged({"mean": mean.numpy()}, task)

        facts |= {"sampler": one}
    else:
        task = str(sample.reader.task)

        def predict(images: np.ndarray) -> Arrays:
            return arranged({name: value.numpy() for name, value in sample(feed(images)).items()}, task)

        facts |= {"sampler": sample, "num_samples": sample.num_samples}
    facts |= {"is_map": is_of_pixels(model.output_shape), "task": task}
    return Predictor(predict, shape_of_images(model), class_names, taken_by(model), **facts)


def _task_of_export(path: Path, info: Mapping[str, Any], said: str | None) -> str:
    """Returns the output kind of an export, or raises a ValueError if the caller says another."""
    kind = info.get("task", "multi_class")
    if said not in (None, kind):
        raise ValueError(f"The export {path} is of the task {kind!r}. Leave out task={said!r}")
    return kind


def _from_saved_model(path: Path, input_range: tuple[float, float] | None, task: str | None) -> Predictor:
    info = facts_of_export(path)
    kind = _task_of_export(path, info, task)
    export = Export(path, info, pixels_of_export(path, info, input_range))

    def predict(images: np.ndarray) -> Arrays:
        return arranged(export(images), kind)

    names = tuple(info["class_names"]) if info.get("class_names") else None
    return Predictor(
        predict,
        export.input_shape,
        names,
        export.pixels,
        num_samples=int(info.get("num_samples") or 1) if export.samples else 1,
        is_map=is_of_pixels(export.output_shape),
        task=kind,
        outputs=export.outputs,
    )
