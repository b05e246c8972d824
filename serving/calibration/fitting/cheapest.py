"""The cheapest sites that find errors nearly as well as all sites do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import stats

from dropzoo.common.words import count_of
from dropzoo.serving.calibration.fitting.heldout import check_labels
from dropzoo.serving.calibration.fitting.sources import rates_of
from dropzoo.serving.calibration.sites import can_set, named_sites
from dropzoo.serving.montecarlo.attribution import Attribution
from dropzoo.serving.montecarlo.sampler import MonteCarlo

_BATCH = 32
_POSITIONS = 1 << 10  # at most this many of each image


@dataclass(frozen=True)
class Cheapest:
    """The cheapest sites that find errors nearly as well as all sites do.

    Attributes:
        sites: Dict from the sites to their rates, as `MonteCarlo(sites=...)` takes it.
        auroc: Float, the AUROC with which the predictive entropy of these sites' samples finds errors.
        auroc_of_all: Float, the AUROC of all active sites.
        cost: Float, the cost of all samples with these sites. The unit is one pass through the whole model,
            measured in multiplications.
        cost_of_all: Float, the same with all active sites.
        attribution: The `Attribution` from which the candidates were made.
    """

    sites: dict[str, float | bool]
    auroc: float
    auroc_of_all: float
    cost: float
    cost_of_all: float
    attribution: Attribution

    def __str__(self) -> str:
        return (
            f"{', '.join(self.sites)}: error AUROC {self.auroc:.3f} of {self.auroc_of_all:.3f}, "
            f"{self.cost:.1f} of {self.cost_of_all:.1f} passes"
        )


def cheapest_sites(mc: MonteCarlo, images: Any, labels: Any, keep: float = 0.95) -> Cheapest:
    """Returns the cheapest set of sites whose samples find errors nearly as well as samples with all sites.

    Late sites are cheap, because the layers before them are computed once. The candidates are two kinds of sets of
    sites: a site together with all later sites; and, for every k, the k sites that contribute most to the
    uncertainty (those with the largest `total` in `mc.attribute`). The AUROC of a candidate measures how well the
    predictive entropy of its samples finds errors (see `training.error_auroc`). A candidate is good enough if its
    AUROC is at least `keep` times that of all sites. The cheapest of these is returned. Use images that the model
    was not trained on. The model is traced once for all candidates.

    Args:
        mc: A `MonteCarlo` with a fixed number of samples and one output that is not a regression.
        images: Array of images.
        labels: Array of the classes, or of 0 and 1 for each label, as for `calibrate`.
        keep: Float in (0, 1], the share of the AUROC to keep.

    Returns:
        A `Cheapest`. Printing it gives a summary.

    Raises:
        ValueError: If the answers are all right or all wrong, if the labels do not fit, if `mc` has a calibration,
            or for the same reasons as in `mc.attribute`.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", input_shape=(8, 8, 1), filters=(4,), dropout=0.2)
    >>> images, labels = np.random.default_rng(0).random((40, 8, 8, 1), "float32"), np.arange(40) % 10
    >>> found = serving.cheapest_sites(serving.MonteCarlo(model, 4), images, labels)
    >>> found.cost <= found.cost_of_all
    True
    """
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise ValueError(f"`keep` must be in (0, 1]. Received: keep={keep!r}")
    if mc.calibration is not None:
        raise ValueError(
            "A calibration only holds for its own sites. First choose the cheapest sites with a MonteCarlo "
            "without `calibration=`, then calibrate a MonteCarlo with these sites. Received: a sampler with a "
            "calibration"
        )
    attribution = mc.attribute(images)
    output = mc.reader.outputs[0]
    if output.kind == "regression":
        raise ValueError(
            "`cheapest_sites` needs answers that are right or wrong; the answers of a regression are neither. "
            "Received: a regression model"
        )
    truth = check_labels(np.asarray(labels), output.kind, output.shape)
    named = named_sites(mc.model)
    own = {name: rate for name, rate in rates_of(mc).items() if name in attribution.sites}
    free = [name for name in attribution.sites if can_set(named[name])]
    live: dict[str, Any] = own | {name: tf.Variable(float(own[name]), trainable=False) for name in free}
    sampler = _like(mc, live)

    def auroc(on: Sequence[str]) -> float:
        for name in free:
            live[name].assign(float(own[name]) if name in on else 0.0)
        return _auroc(sampler, images, truth, output.kind)

    fixed = [name for name in attribution.sites if name not in free]
    whole, cost_of_all = auroc(free), _cost(mc, own)
    best, found, cheapest = own, whole, cost_of_all
    for candidate in _candidates(free, attribution):
        sites = {name: own[name] for name in (*fixed, *candidate)}
        if (cost := _cost(mc, sites)) < cheapest and (reached := auroc(candidate)) >= keep * whole:
            best, found, cheapest = sites, reached, cost
    return Cheapest(best, found, whole, cheapest, cost_of_all, attribution)


def _candidates(free: list[str], attribution: Attribution) -> list[list[str]]:
    """Returns sets of sites: each site with all later ones, and those that contribute most; none is empty."""
    order = np.argsort(-attribution.total, kind="stable")
    ranked = [attribution.sites[i] for i in order if attribution.sites[i] in free]
    sets = [free[i:] for i in range(len(free))] + [ranked[:k] for k in range(1, len(free))]
    return [list(each) for each in dict.fromkeys(tuple(sorted(each, key=free.index)) for each in sets)]


def _like(mc: MonteCarlo, sites: dict[str, Any]) -> MonteCarlo:
    """A sampler that differs in its sites."""
    options = {name: getattr(mc, name) for name in ("sampling", "seed", "task", "from_logits", "memory_budget")}
    return MonteCarlo(mc.model, mc.max_samples, sites=sites, **options)


def _cost(mc: MonteCarlo, sites: dict[str, float | bool]) -> float:
    """The multiplications of all samples, as a number of passes."""
    once = _like(mc, sites).cut().f
    return once + mc.max_samples * (1.0 - once)


def _auroc(sampler: MonteCarlo, images: Any, truth: np.ndarray, kind: str) -> float:
    """The AUROC with which the predictive entropy finds errors, over images or over positions of maps."""
    doubts, errors = [], []
    for first in range(0, len(truth), _BATCH):
        labels = truth[first : first + _BATCH]
        out = sampler(keras.tree.map_structure(lambda x, i=first: np.asarray(x)[i : i + _BATCH], images))
        mean = out["mean"].numpy().reshape(*labels.shape[:2], -1)
        if kind == "multi_label":
            wrong = ((mean >= 0.5) != (labels == 1)).any(-1)
        else:
            wrong = (mean.argmax(-1) if mean.shape[-1] > 1 else (mean[..., 0] >= 0.5)) != labels
        step = -(-labels.shape[1] // _POSITIONS)
        doubts.append(out["predictive_entropy"].numpy().reshape(len(labels), -1)[:, ::step].ravel())
        errors.append(wrong[:, ::step].ravel())
    doubt, error = np.concatenate(doubts), np.concatenate(errors)
    positive = int(error.sum())
    if positive in (0, len(error)):
        raise ValueError(
            "Some of the model's answers must be right and some wrong, so that the sites can be compared. "
            f"Received: {count_of(positive, 'error')} in {count_of(len(error), 'answer')}"
        )
    ranks = stats.rankdata(doubt)[error].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * (len(error) - positive)))
