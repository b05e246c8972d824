"""The mean size of class sets, beside those of other packages from the same probabilities."""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from calibrating.data import LEVELS, Row, predictions, splits

from dropzoo.serving.calibration.fitting import bounds

#: A function from known probabilities, their labels, new probabilities and a level to the mean size of sets of the
#: new ones; None if the package is not installed.
Size = Callable[[np.ndarray, np.ndarray, np.ndarray, float], float | None]


def sets(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    found = predictions(name, arguments)
    if found["labels"].ndim > 1:
        return
    for column in ("one_pass", "samples"):
        for level in LEVELS:
            for other, size in OTHERS.items():
                yield (
                    f"size {column} {level}" + ("" if other == "MAPIE" else f", {other}"),
                    lambda c=column, a=level, o=other, s=size: set_sizes(
                        found[c], found["labels"], a, o, s, arguments
                    ),
                )


def set_sizes(
    p: np.ndarray, labels: np.ndarray, level: float, other: str, size: Size, arguments: argparse.Namespace
) -> Row:
    """The mean size of sets over a few splits, ours and those of another package."""
    ours, theirs = [], []
    few = argparse.Namespace(splits=min(arguments.splits, 20))
    for old, new in splits(len(p), few):
        true = p[old, labels[old]]
        ours.append(float((p[new] >= bounds.conformal_threshold(true, level)).sum(1).mean()))
        theirs.append(size(p[old], labels[old], p[new], level))
    row: Row = {"level": level, "value": round(float(np.mean(ours)), 5)}
    if theirs[0] is None:
        return row | {"note": f"{other} is not installed"}
    mean = float(np.mean([each for each in theirs if each is not None]))
    return row | {"other": round(mean, 5), "must": bool(row["value"] <= mean + 0.002)}


def mapie_size(p: np.ndarray, labels: np.ndarray, new: np.ndarray, level: float) -> float | None:
    """The mean size of MAPIE's sets (LAC) from the same probabilities; None without MAPIE."""
    try:
        from mapie.classification import SplitConformalClassifier
    except ImportError:
        return None
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose features are its probabilities."""

        def __init__(self) -> None:
            self.classes_, self.n_features_in_ = np.arange(p.shape[1]), p.shape[1]

        def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
            return self

        def predict_proba(self, x: np.ndarray) -> np.ndarray:
            return x / x.sum(1, keepdims=True)

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x.argmax(1)

        def __sklearn_is_fitted__(self) -> bool:
            return True

    conformal = SplitConformalClassifier(Given(), confidence_level=1 - level, conformity_score="lac", prefit=True)
    conformal.conformalize(p.astype(float), labels)
    _, found = conformal.predict_set(new.astype(float))
    return float(found[..., 0].sum(1).mean())


def torchcp_size(p: np.ndarray, labels: np.ndarray, new: np.ndarray, level: float) -> float | None:
    """The mean size of TorchCP's sets (LAC) from the same probabilities; None without TorchCP."""
    try:
        import torch
        from torchcp.classification.predictor import SplitPredictor
        from torchcp.classification.score import LAC
    except ImportError:
        return None
    predictor = SplitPredictor(LAC(score_type="identity"))
    predictor.calculate_threshold(torch.tensor(p), torch.tensor(labels), level)
    found = predictor.predict_with_logits(torch.tensor(new))
    return float(np.asarray(found, float).sum(1).mean())


def keras_proba_size(p: np.ndarray, labels: np.ndarray, new: np.ndarray, level: float) -> float | None:
    """The mean size of keras-proba's sets (LAC) from the same probabilities; None without keras-proba."""
    try:
        from keras_proba.postprocessing import SplitConformalClassifier
    except ImportError:
        return None
    conformal = SplitConformalClassifier(alpha=level, score="lac").fit(labels, p)
    return float(np.asarray(conformal.predict_set(new), float).sum(1).mean())


OTHERS: dict[str, Size] = {"MAPIE": mapie_size, "TorchCP": torchcp_size, "keras-proba": keras_proba_size}
