"""Figures, the numbers that judge a model on a data set, and their names."""

from collections.abc import Mapping
from typing import TypedDict

#: Names of figures for people; a figure that is not listed keeps its name in `Figures`.
LABELS = {
    "mean_iou": "mean IoU",
    "nll": "NLL",
    "calibrated_nll": "calibrated NLL",
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
        mean_iou: Float in [0, 1], the mean over the classes that occur in the true or the predicted masks. For
            segmentation only.
        iou: Dict of the intersection over union of each class; None for a class that occurs in neither the true
            nor the predicted masks. For segmentation only.
        nll: Float, the negative log-likelihood in nats.
        calibrated_nll: Float, the NLL with the temperature that fits the validation images. Sweeps record it.
        brier: Float in [0, 2], the Brier score.
        ece: Float in [0, 1], the expected calibration error over 15 bins of equal width.
        ece_adaptive: The same over 15 bins of equal mass.
        ece_classwise: The mean of the calibration errors of all classes.
        aurc: Float, the area under the risk-coverage curve; None if the model returns NaN. The uncertainty is the
            entropy of the prediction. For large masks, 4,096 pixels of each image represent all of them.
        error_auroc: Float in [0, 1], how well the entropy distinguishes errors from right answers; None if all
            answers are right or all are wrong, or if the model returns NaN.
        count: Int, the number of images.
    """

    accuracy: float
    mean_iou: float
    iou: dict[str, float | None]
    nll: float
    calibrated_nll: float
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
    """Returns the figure of this name; any but `iou`, which is a dict."""
    return figures[name]  # type: ignore[literal-required]


def score_name(figures: Mapping[str, object]) -> str:
    """Returns the name of the figure that is the score: `"mean_iou"` for masks, else `"accuracy"`."""
    return "mean_iou" if "mean_iou" in figures else "accuracy"


def label(name: str) -> str:
    """Returns a figure's name for people."""
    return LABELS.get(name, name)
