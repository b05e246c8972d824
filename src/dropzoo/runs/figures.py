"""Figures: the numbers that judge a model on a data set, and how they are called."""

from collections.abc import Mapping
from typing import TypedDict

#: Names for people; a figure that is not here is called as in `Figures`.
LABELS = {
    "mean_iou": "mean IoU",
    "nll": "NLL",
    "brier": "Brier score",
    "ece": "ECE",
    "ece_adaptive": "ECE, equal mass",
    "ece_classwise": "ECE, class-wise",
    "aurc": "AURC",
    "error_auroc": "error AUROC",
}


class Figures(TypedDict, total=False):
    """The figures of one evaluation, over all its images or, for segmentation, their pixels.

    `results.json` of a run holds them under these names.

    Attributes:
        accuracy: Float in [0, 1].
        mean_iou: Float in [0, 1], over the classes that occur. For segmentation only.
        iou: For each class its intersection over union; None if it does not occur. For segmentation only.
        nll: Float, the negative log-likelihood in nats.
        brier: Float in [0, 2], the Brier score.
        ece: Float in [0, 1], the expected calibration error over 15 bins of equal width.
        ece_adaptive: The same over 15 bins of equal mass.
        ece_classwise: The mean of the calibration errors of all classes.
        aurc: Float, the area under the risk-coverage curve; None if the model returns NaN. The uncertainty is the
            entropy of the prediction. For large masks, 4,096 pixels an image stand for all.
        error_auroc: Float in [0, 1], how well the entropy tells errors from right answers; None without a single
            error, and if the model returns NaN.
        count: Int, the number of images.
    """

    accuracy: float
    mean_iou: float
    iou: dict[str, float | None]
    nll: float
    brier: float
    ece: float
    ece_adaptive: float
    ece_classwise: float
    aurc: float | None
    error_auroc: float | None
    count: int


#: Figures of several methods of prediction, by their titles, such as "Monte Carlo, 30 samples".
ByMethod = dict[str, Figures]
#: Figures on corrupted images, by the corruption's name and severity.
Corrupted = dict[tuple[str, int], ByMethod]


def value(figures: Figures, name: str) -> float | None:
    """Returns a figure by a name that is a variable; `iou` has no single value."""
    return figures[name]  # type: ignore[literal-required]


def score_name(figures: Mapping[str, object]) -> str:
    """Returns which figure is the score: `"mean_iou"` if there are masks, else `"accuracy"`."""
    return "mean_iou" if "mean_iou" in figures else "accuracy"


def label(name: str) -> str:
    """Returns a figure's name for people."""
    return LABELS.get(name, name)
