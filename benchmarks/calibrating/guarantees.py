"""The mean risk of each guarantee on new images, over random splits."""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from calibrating.data import CLASSES, LEVELS, Row, judged, predictions, splits
from calibrating.masks import mask_curves, usual_size

from dropzoo.serving.calibration.fitting import bounds


def guarantees(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    found = predictions(name, arguments)
    labels = found["labels"]
    for column in ("one_pass", "samples"):
        p = found[column]
        doubts = (1 - p.max(-1)).reshape(len(p), -1).mean(1)
        losses = (p.argmax(-1) != labels).reshape(len(p), -1).mean(1)
        classes = CLASSES.get(name, ())
        curves = {k: mask_curves(p, labels, k, usual_size(name, labels, k)) for k in classes}
        for level in LEVELS:
            if labels.ndim == 1:
                yield f"set {column} {level}", lambda p=p, a=level: set_risk(p, labels, a, arguments)
            for k, each in curves.items():
                yield f"miss {column} {level} class {k}", lambda e=each, a=level: miss_risk(e, a, arguments)
                yield f"false {column} {level} class {k}", lambda e=each, a=level: false_risk(e, a, arguments)
            binary = labels.ndim == 1
            yield (
                f"error {column} {level}",
                lambda d=doubts, x=losses, a=level, b=binary: error_risk(d, x, a, b, arguments),
            )


def set_risk(p: np.ndarray, labels: np.ndarray, level: float, arguments: argparse.Namespace) -> Row:
    true = p[np.arange(len(p)), labels]
    return judged(
        [
            float((true[new] < bounds.conformal_threshold(true[old], level)).mean())
            for old, new in splits(len(p), arguments)
        ],
        level,
    )


def miss_risk(curves: dict[str, np.ndarray], level: float, arguments: argparse.Namespace) -> Row:
    miss, risks = curves["miss"], []
    for old, new in splits(len(miss), arguments):
        place = bounds.risk_control(miss[old].sum(0, dtype=float), len(old), level)
        risks.append(float(miss[new, place].mean()))
    return judged(risks, level)


def false_risk(curves: dict[str, np.ndarray], level: float, arguments: argparse.Namespace) -> Row:
    bound, false, risks = curves["bound"], curves["false"], []
    for old, new in splits(len(bound), arguments):
        place = bounds.risk_control(bound[old].sum(0, dtype=float)[::-1], len(old), level)
        risks.append(float(false[new, bound.shape[1] - 1 - place].mean()))
    return judged(risks, level)


def error_risk(
    doubts: np.ndarray, losses: np.ndarray, level: float, binary: bool, arguments: argparse.Namespace
) -> Row:
    """The error rate of the images that are kept, on average over splits; 0 in a split that keeps none."""
    risks, kept = [], []
    for old, new in splits(len(doubts), arguments):
        third = len(old) // 3
        first, then = old[:third], old[third:]
        start = bounds.best_start(doubts[first], losses[first], level)
        found = bounds.selective_threshold(doubts[then], losses[then], level, 0.9, binary, start)
        keep = doubts[new] < (-1.0 if found is None else found)
        risks.append(float(losses[new][keep].mean()) if keep.any() else 0.0)
        kept.append(float(keep.mean()))
    row = judged(risks, level) | {"kept": round(float(np.mean(kept)), 4)}
    # Where all images are kept, the level cannot be reached: nothing is wasted, and the aim does not apply.
    return row | ({"aim": "all are kept"} if not row["aim"] and row["kept"] > 0.995 else {})
