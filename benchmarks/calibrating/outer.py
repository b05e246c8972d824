"""The area of outer masks from samples, beside one threshold on one pass."""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from calibrating.data import CLASSES, LEVELS, Row, predictions, splits
from calibrating.masks import mask_curves, usual_size

from dropzoo.serving.calibration.fitting import bounds


def outer(name: str, arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Row]]]:
    classes = CLASSES.get(name, ())
    if not classes:
        return
    found = predictions(name, arguments)
    masks = found["labels"]
    curves = {
        "one_pass": {k: mask_curves(found["one_pass"], masks, k, 1.0) for k in classes},
        "samples": {k: mask_curves(found["samples"], masks, k, usual_size(name, masks, k)) for k in classes},
    }
    for level in LEVELS:
        fresh = "" if arguments.scene_seed == 1 else f", scenes of seed {arguments.scene_seed}"
        yield f"area {level}{fresh}", lambda a=level: area_ratio(curves, a, arguments)


def area_ratio(
    curves: dict[str, dict[int, dict[str, np.ndarray]]], level: float, arguments: argparse.Namespace
) -> Row:
    areas: dict[str, list[float]] = {"one_pass": [], "samples": []}
    elsewhere: dict[str, list[float]] = {"one_pass": [], "samples": []}
    for column, by_class in curves.items():
        for each in by_class.values():
            for old, new in splits(len(each["miss"]), argparse.Namespace(splits=min(arguments.splits, 50))):
                place = bounds.risk_control(each["miss"][old].sum(0, dtype=float), len(old), level)
                areas[column].append(float(each["area"][new, place].mean()))
                if len(each["elsewhere"]):
                    elsewhere[column].append(float(each["elsewhere"][:, place].mean()))
    ratio = float(np.mean(areas["samples"]) / np.mean(areas["one_pass"]))
    note = ", ".join(f"{column} {np.mean(each):.4f}" for column, each in elsewhere.items() if each)
    row: Row = {"level": level, "value": round(ratio, 4), "must": bool(ratio <= 0.95), "aim": bool(ratio <= 0.85)}
    return row | ({"note": f"share of images without the class: {note}"} if note else {})
