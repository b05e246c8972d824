"""The evaluation of one model, as `dropzoo evaluate` makes it: its methods of prediction side by side."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from rich.table import Table

from dropzoo import serving, training
from dropzoo.runs.data import judged_files, judged_images, judged_objects, judged_on
from dropzoo.runs.details import Details, detail_tables
from dropzoo.runs.evaluation import (
    LogProbabilities,
    Sampler,
    Track,
    fit_temperatures,
    log_of_mean,
    log_probabilities,
    score_all,
    score_corruptions,
    title_of,
    with_temperature,
)
from dropzoo.runs.figures import ByMethod, Corrupted
from dropzoo.runs.inputs import feeding
from dropzoo.runs.members import ensemble_of
from dropzoo.runs.promises import Promises, promises_table
from dropzoo.runs.scores import Scores
from dropzoo.runs.tables import corruption_tables, figures_table, ood_table, text_table
from dropzoo.runs.uncertainty import Foreign, Uncertainty, ood_aurocs, per_image, sample_all
from dropzoo.serving.montecarlo.attribution import Attribution
from dropzoo.serving.montecarlo.reader import log_of_probabilities

_ATTRIBUTED = 16  # images whose uncertainty is attributed to sites


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The parts of an evaluation besides the figures of one deterministic pass.

    Attributes:
        num_samples: Int. Number of Monte-Carlo samples whose mean is evaluated too; 0 for none. With members,
            the samples of the first one and as many samples of all of them together are evaluated.
        temperature: Bool. Whether to evaluate also at the temperature that fits the validation images best.
        corruptions: List of the names of corruptions to evaluate under.
        foreign: `Foreign` or None. Images of another data set, to measure how well the uncertainty distinguishes
            them from the model's own. It needs `num_samples` or members.
        examples: Bool. Whether to keep the most and the least certain images. It needs `num_samples` or members.
        from_logits: Bool. Whether the model's output is logits, as for `MonteCarlo`. If None, the model shows it.
        split: Str or None. The images to judge on, as for `judged_images`.
        per: Names of `details.PER`: scores by class, by image or by object.
        members: The members of an ensemble, whose mean is evaluated too; empty for a single model.
        calibration: The calibration of the model or of the ensemble, whose answers are evaluated too, or None.
    """

    num_samples: int = 0
    temperature: bool = False
    corruptions: list[str] = field(default_factory=list)
    foreign: Foreign | None = None
    examples: bool = False
    from_logits: bool | None = None
    split: str | None = None
    per: tuple[str, ...] = ()
    members: list[keras.Model] = field(default_factory=list)
    calibration: serving.Calibration | None = None


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        info: `DataInfo`, the facts of the data set.
        scores: Dict of `Scores` by the title of the method; a method with a temperature has a second entry.
        figures: The figures of `scores`, by the same titles.
        clean: The figures without temperatures, to compare those on corrupted images with.
        corrupted: The figures on corrupted images.
        uncertainty: `Uncertainty` on the whole data set; None if neither examples nor foreign images were wanted.
        details: `Details`, the scores by class, image and object; None if they were not wanted.
        aurocs: By caption, the AUROC in [0, 1] with which each measure of uncertainty distinguishes foreign images
            from the model's own.
        promises: `Promises`, the measured promises of the calibration; None without a calibration.
        model: The model.
        attribution: `Attribution`, the share of the uncertainty that comes from each site on a few images; None if
            no examples were wanted, there are several members, or the sampler cannot attribute it.
    """

    info: training.DataInfo
    scores: dict[str, Scores]
    figures: ByMethod
    clean: ByMethod
    corrupted: Corrupted
    uncertainty: Uncertainty | None
    aurocs: dict[str, dict[str, float]]
    promises: Promises | None = None
    details: Details | None = None
    model: keras.Model | None = None
    attribution: Attribution | None = None


def compare(
    model: keras.Model, data: training.Data, wanted: Wanted, show: Callable[[Table], None], track: Track = iter
) -> Evaluation:
    """Evaluates the methods of prediction of a model on the images of `judged_images`.

    Args:
        model: A model that fits the data.
        data: The result of `load_data`.
        wanted: The parts of the evaluation.
        show: Function that gets each table as soon as it is ready.
        track: Function that iterates over a sequence and shows the progress.

    Returns:
        The results.

    Raises:
        ValueError: If a temperature is wanted and there are no validation or no test images.
    """
    dataset, info = judged_images(data, wanted.split), data.info
    monte_carlo, said = None, wanted.from_logits
    if wanted.num_samples:
        monte_carlo = serving.MonteCarlo(model, num_samples=wanted.num_samples, from_logits=said)
    ways = {"deterministic": log_probabilities(model, None, said)}
    temperatures = fit_temperatures(ways, data) if wanted.temperature else {}
    samplers: list[Sampler] = [] if monte_carlo is None else [monte_carlo]
    if len(wanted.members) > 1:
        counts = dict.fromkeys((None, wanted.num_samples or None))
        samplers += [ensemble_of(wanted.members, count, from_logits=said) for count in counts]
    columns = dict(ways)
    for each in samplers:
        ways[title_of(each)] = columns[title_of(each)] = log_of_mean(each)
        columns |= [with_temperature(each, data)] if wanted.temperature else []
    scores = score_all(columns, dataset, info, temperatures)
    promises = None
    if wanted.calibration is not None:
        if (judged := judged_on(info, wanted.split) or "all") != "test":
            warnings.warn(
                f"The guarantees are checked on {judged} images, and the calibration may have been fitted on some "
                "of them. Only other images show whether the guarantees hold",
                stacklevel=2,
            )
        promises = _score_calibrated(model, wanted, dataset, info, scores)
    figures = {title: each.figures() for title, each in scores.items()}
    show(figures_table(figures, judged_on(info, wanted.split)))
    if promises is not None and (measured := promises.measured()):
        show(promises_table(measured, judged_on(info, wanted.split) or "all"))

    uncertainty, aurocs = None, {}
    if samplers and (wanted.examples or wanted.foreign):
        uncertainty = sample_all(samplers[-1], dataset)  # of all members together, if there are several
        if wanted.foreign:
            name, split, foreign = wanted.foreign
            caption = f"OOD AUROC against {name}, {split} images"
            aurocs[caption] = ood_aurocs(samplers[-1], ways["deterministic"], uncertainty, dataset, foreign)
            show(ood_table(caption, aurocs[caption]))

    details = _details(ways, samplers, dataset, data, wanted) if wanted.per else None
    for caption, heads, rows in detail_tables(details) if details else ():
        show(text_table(caption, heads, rows))

    clean = {title: figures[title] for title in ways}
    corrupted = score_corruptions(ways, dataset, info, wanted.corruptions, track)
    for table in corruption_tables(clean, corrupted):
        show(table)
    single = monte_carlo if len(wanted.members) < 2 else None
    attribution = _attribution(single, dataset) if single is not None and wanted.examples else None
    return Evaluation(
        info, scores, figures, clean, corrupted, uncertainty, aurocs, promises, details, model, attribution
    )


def _attribution(monte_carlo: serving.MonteCarlo, dataset: tf.data.Dataset) -> Attribution | None:
    """The share of the uncertainty from each site on the first images; None if the sampler cannot attribute it."""
    if monte_carlo.plain_passes or len(monte_carlo.reader.names) > 1:
        return None
    images = next(iter(dataset))[0][:_ATTRIBUTED]
    return monte_carlo.attribute(feeding(monte_carlo.model)(images))


def _details(
    ways: dict[str, LogProbabilities],
    samplers: list[Sampler],
    dataset: tf.data.Dataset,
    data: training.Data,
    wanted: Wanted,
) -> Details:
    """Returns the details of the last way to predict, which is that of samples if there are any."""
    files, objects = judged_files(data, wanted.split), judged_objects(data, wanted.split)
    found = Details(data.info, wanted.per, files, objects)
    if not samplers:
        (predict,) = ways.values()
        for images, labels in dataset:
            found.add(labels, predict(images))
        return found
    feed = feeding(samplers[-1].model)
    for images, labels in dataset:
        out = samplers[-1](feed(images))
        information = per_image(np.asarray(out["mutual_information"]))
        found.add(labels, log_of_probabilities(out["mean"]), information)
    return found


def _score_calibrated(
    model: keras.Model,
    wanted: Wanted,
    dataset: tf.data.Dataset,
    info: training.DataInfo,
    scores: dict[str, Scores],
) -> Promises:
    """Adds the scores of the calibrated answers, and returns their measured promises."""
    calibration, said = wanted.calibration, wanted.from_logits
    predictor: Sampler
    if len(wanted.members) > 1:
        predictor = serving.Ensemble(wanted.members, from_logits=said, calibration=calibration)
    else:
        predictor = serving.MonteCarlo(model, from_logits=said, calibration=calibration)
    promises = Promises(calibration, info.class_names, info.ignore_class)  # type: ignore[arg-type]  # the caller has one
    passes = "one pass" if predictor.num_samples == 1 else f"{predictor.num_samples} passes"
    scores[f"calibrated, {passes}"] = added = Scores(info)
    feed = feeding(model)
    for images, labels in dataset:
        out = predictor(feed(images))
        added.add(labels, log_of_probabilities(out["mean"]))
        promises.add(labels.numpy(), out)
    return promises
