"""Turns an answer into what the page shows: bars for classes, pictures for masks and uncertainty."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
from scipy import ndimage
from typing_extensions import NotRequired

from dropzoo.serving.server.batching import Arrays
from dropzoo.serving.server.counts import Count
from dropzoo.serving.server.forms import likeliest
from dropzoo.serving.server.info import Output
from dropzoo.serving.server.limits import Refused
from dropzoo.serving.server.png import data_address
from dropzoo.serving.server.promises import Promised, promised

# The colours of Okabe and Ito, which colour-blind people can tell apart. The first colour is pale, because the
# first class is mostly the background.
_COLOURS = ["#f2f2f2", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#999999"]
_COLOURS += ["#7a4fa3", "#8c564b", "#1b3a57"]
# From black through purple and orange to light yellow: the colour map inferno at eight places.
_HEAT = [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39)]
_HEAT += [(252, 255, 164)]


_MAIN = ("mean", "probabilities", "values")  # an answer has one of these
_NAMES = (*_MAIN, "variance", "predictive_entropy", "mutual_information", "classes", "labels")


class Row(TypedDict):
    """One line below the pictures: a class with its probability or its share, or an output with its value."""

    name: str
    probability: NotRequired[float]
    value: NotRequired[float]
    deviation: NotRequired[float]
    objects: NotRequired[int]
    least: NotRequired[int]  # the ends of the interval of `objects`, which holds for the share `level` of images
    most: NotRequired[int]
    level: NotRequired[float]
    colour: NotRequired[str]


class Shown(TypedDict, total=False):
    """The data that the page shows; the keys depend on `view`."""

    view: str  # "classes", "labels" or "values" for one answer per image; "class_map" or "value_map" for maps
    sampled: bool  # whether the answer comes from samples
    classes: list[Row]
    most: float  # the largest possible entropy, in nats
    uncertainty: dict[str, float]
    mask: str  # a picture as a data: address, like `heat`
    heat: str
    name: str  # the output that a map of values shows, then its smallest and largest value and largest deviation
    least: float
    top: float
    spread: float
    promise: Promised


def pictures(answer: Arrays, outputs: Sequence[Output]) -> dict[str, Any]:
    """Returns the data that the page shows for the first image of an answer, for one output or several.

    Args:
        answer: Answer of `predict_mc` or `serving_default`, arrays by name.
        outputs: The descriptions of the model's outputs.

    Returns:
        A dict for the only output, or `{"outputs": [...]}` with one for each output that can be shown.

    Raises:
        Refused: If no output can be shown.
    """
    shown: list[dict[str, Any]] = []
    for each in outputs:
        start = f"{each.name}_" if len(outputs) > 1 else ""
        part = {name: answer[start + name] for name in _NAMES if start + name in answer}
        if _can_be_shown(part):
            shown.append({"output": each.name, **picture(part, each.class_names, each.kind, each.counts)})
            if (promise := promised(answer, each)) is not None:  # only a model of one output has a calibration
                shown[-1]["promise"] = promise
    if not shown:
        raise Refused(
            400, "This model returns neither one answer for an image nor a map, so its answer cannot be shown here"
        )
    return shown[0] if len(outputs) == 1 else {"outputs": shown}


def _can_be_shown(answer: Arrays) -> bool:
    """Whether an answer is one row of classes or values for each image, or a map of them."""
    return any(value.ndim in (2, 4) for name, value in answer.items() if name in _MAIN)


def picture(
    outputs: Arrays,
    class_names: Sequence[str] | None,
    kind: str = "multi_class",
    counts: Mapping[str, Count] = MappingProxyType({}),
) -> Shown:
    """Returns the data that the page shows for the first image of an answer.

    Args:
        outputs: Answer of `predict_mc` or `serving_default`, arrays by the name of the output.
        class_names: Names of the classes, labels or values; None for their numbers.
        kind: One of `KINDS`, what the output means.
        counts: The intervals of counts of objects, by the name of the class.
    """
    answer = {name: value[0] for name, value in outputs.items()}
    (p,) = (np.asarray(answer[name], "float64") for name in _MAIN if name in answer)
    deviation = np.sqrt(answer["variance"]) if "variance" in answer else None
    if p.shape[-1] == 1 and kind in ("multi_class", "binary"):  # `p` is that of the second of two classes
        p = np.concatenate([1 - p, p], -1)
        deviation = None if deviation is None else np.concatenate([deviation, deviation], -1)
    names = list(class_names or [str(i) for i in range(p.shape[-1])])
    sampled = deviation is not None
    if kind == "regression":
        show = _values if p.ndim == 1 else _value_map
        return {"sampled": sampled, **show(p, deviation, names)}
    shown: Shown = {"sampled": sampled}
    coins = np.log(2) * p.shape[-1]
    shown["most"] = float(coins if kind == "multi_label" else np.log(p.shape[-1]))
    shown["uncertainty"] = {
        name: float(answer[name].mean()) for name in ("predictive_entropy", "mutual_information") if name in answer
    }
    if p.ndim == 1:
        view = "labels" if kind == "multi_label" else "classes"
        return {**shown, "view": view, "classes": _bars(p, deviation, names)}
    heat = answer["predictive_entropy"] if "predictive_entropy" in answer else 1 - p.max(-1)
    return {
        **shown,
        **_class_map(p, names, kind, counts),
        "heat": data_address(np.clip(heat / shown["most"] * 255, 0, 255), _scale()),
    }


def _bars(p: np.ndarray, deviation: np.ndarray | None, names: list[str]) -> list[Row]:
    bars: list[Row] = []
    for i in np.argsort(-p, kind="stable")[:20]:
        bars.append({"name": names[i], "probability": float(p[i])})
        if deviation is not None:
            bars[-1]["deviation"] = float(deviation[i])
    return bars


def _class_map(p: np.ndarray, names: list[str], kind: str, counts: Mapping[str, Count]) -> Shown:
    """The likeliest class of each pixel, and each class's share of the pixels."""
    best = likeliest(p, kind)
    if kind == "multi_label":
        names, shares = ["none", *names], np.array([np.mean(best == 0), *np.mean(p > 0.5, (0, 1))])
    else:
        shares = np.bincount(best.ravel(), minlength=p.shape[-1]) / best.size
    classes: list[Row] = [
        {"name": names[i], "probability": float(shares[i]), "colour": _COLOURS[i % len(_COLOURS)]}
        for i in np.argsort(-shares, kind="stable")
        if shares[i]
    ]
    if kind != "multi_label":
        for row in classes:
            if (i := names.index(row["name"])) > 0:  # the first class is mostly the background
                row["objects"] = int(ndimage.label(best == i, np.ones((3, 3)))[1])
                if (known := counts.get(row["name"])) is not None:
                    row["least"], row["most"] = known.around(row["objects"])
                    row["level"] = known.level
    palette = [tuple(bytes.fromhex(c[1:])) for c in _COLOURS]
    return {"view": "class_map", "classes": classes, "mask": data_address(best % len(_COLOURS), palette)}


def _values(mean: np.ndarray, deviation: np.ndarray | None, names: list[str]) -> Shown:
    """One line for each output."""
    rows: list[Row] = [{"name": name, "value": float(value)} for name, value in zip(names, mean, strict=True)]
    for row, spread in zip(rows, deviation if deviation is not None else [], strict=False):
        row["deviation"] = float(spread)
    return {"view": "values", "classes": rows}


def _value_map(mean: np.ndarray, deviation: np.ndarray | None, names: list[str]) -> Shown:
    """The first output and its deviation; the range of each fills its palette."""
    first = mean[..., 0]
    shown: Shown = {"view": "value_map", "classes": [], "name": names[0]}
    shown |= {"least": float(first.min()), "top": float(first.max())}
    shown["mask"] = data_address(_stretched(first), [(i, i, i) for i in range(256)])
    if deviation is not None:
        shown |= {
            "heat": data_address(_stretched(deviation[..., 0]), _scale()),
            "spread": float(deviation[..., 0].max()),
        }
    return shown


def _stretched(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(float(np.ptp(values)), 1e-12) * 255


def _scale() -> list[tuple[int, ...]]:
    places = np.linspace(0, 255, len(_HEAT))
    parts = [np.interp(np.arange(256), places, part) for part in zip(*_HEAT, strict=True)]
    return [tuple(int(part[i]) for part in parts) for i in range(256)]
