"""All that `dropzoo evaluate` can find out about one model: methods of prediction side by side, table by table."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
from rich.table import Table

from dropzoo import serving, training
from dropzoo.runs.data import judged_images, judged_on
from dropzoo.runs.evaluation import Track, fit_temperatures, methods, score_all, score_corruptions
from dropzoo.runs.figures import ByMethod, Corrupted
from dropzoo.runs.scores import Scores
from dropzoo.runs.tables import corruption_tables, figures_table, ood_table
from dropzoo.runs.uncertainty import Foreign, Uncertainty, ood_aurocs, sample_all


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to find out, besides the figures of one deterministic pass.

    Attributes:
        num_samples: Int, also predict by the mean over this many Monte-Carlo samples; 0 for none.
        temperature: Bool, also scale by the temperature that fits the validation images best.
        corruptions: Names of corruptions to evaluate under.
        foreign: Images of another data set, which the uncertainty should tell from the model's own.
        examples: Bool, keep the images of the most and of the least uncertainty.
    """

    num_samples: int = 0
    temperature: bool = False
    corruptions: list[str] = field(default_factory=list)
    foreign: Foreign | None = None
    examples: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        info: The data set's facts.
        scores: By method of prediction, also at its temperature.
        figures: Those of the scores.
        clean: The figures without temperatures, with which those on corrupted images compare.
        corrupted: The figures on corrupted images.
        uncertainty: On the whole data set, if the model was sampled.
        aurocs: By caption, how well each measure of uncertainty tells the images of another data set.
    """

    info: training.DataInfo
    scores: dict[str, Scores]
    figures: ByMethod
    clean: ByMethod
    corrupted: Corrupted
    uncertainty: Uncertainty | None
    aurocs: dict[str, dict[str, float]]


def compare(
    model: keras.Model, data: training.Data, wanted: Wanted, show: Callable[[Table], None], track: Track = iter
) -> Evaluation:
    """Evaluates the methods of prediction of a model on the test set, or what stands in for it.

    Args:
        model: A model that fits the data.
        data: What `load_data` returns.
        wanted: What to find out.
        show: Called with each table once it is known.
        track: Iterates over what it is given, and shows how far it is.
    """
    dataset, info = judged_images(data), data.info
    monte_carlo = serving.MonteCarlo(model, num_samples=wanted.num_samples) if wanted.num_samples else None
    ways = methods(model, monte_carlo)
    temperatures = fit_temperatures(ways, data) if wanted.temperature else {}
    scores = score_all(ways, dataset, info, temperatures)
    figures = {title: each.figures() for title, each in scores.items()}
    show(figures_table(figures, judged_on(info)))

    uncertainty, aurocs = None, {}
    if monte_carlo is not None and (wanted.examples or wanted.foreign):
        uncertainty = sample_all(monte_carlo, dataset)
        if wanted.foreign:
            name, split, foreign = wanted.foreign
            caption = f"OOD AUROC against {name}, {split} images"
            aurocs[caption] = ood_aurocs(monte_carlo, ways["deterministic"], uncertainty, dataset, foreign)
            show(ood_table(caption, aurocs[caption]))

    clean = {title: figures[title] for title in ways}
    corrupted = score_corruptions(ways, dataset, info, wanted.corruptions, track)
    for table in corruption_tables(clean, corrupted):
        show(table)
    return Evaluation(info, scores, figures, clean, corrupted, uncertainty, aurocs)
