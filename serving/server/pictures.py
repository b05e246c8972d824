"""An answer as the page shows it: bars for classes, pictures for masks and uncertainty."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from dropzoo.serving.server.requests import Arrays

# Okabe and Ito's colours, which are told apart by the colour blind too; the first class is mostly background.
_COLOURS = ["#f2f2f2", "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#999999"]
_COLOURS += ["#7a4fa3", "#8c564b", "#1b3a57"]
# From black through purple and orange to light yellow: matplotlib's inferno at eight places.
_HEAT = [(0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39)]
_HEAT += [(252, 255, 164)]


def picture(outputs: Arrays, class_names: list[str] | None, task: str = "multi_class") -> dict[str, Any]:
    """What the page shows of the first row of an answer of `predict_mc` or `serving_default`."""
    answer = {name: value[0] for name, value in outputs.items()}
    (p,) = (np.asarray(answer[name], "float64") for name in ("mean", "probabilities", "values") if name in answer)
    deviation = np.sqrt(answer["variance"]) if "variance" in answer else None
    if p.shape[-1] == 1 and task in ("multi_class", "binary"):  # the probability of the second of two classes
        p = np.concatenate([1 - p, p], -1)
        deviation = None if deviation is None else np.concatenate([deviation, deviation], -1)
    names = class_names or [str(i) for i in range(p.shape[-1])]
    shown: dict[str, Any] = {"sampled": deviation is not None}
    if task == "regression":
        return shown | _values(p, deviation, names)
    coins = np.log(2) * p.shape[-1]
    shown["most"] = float(coins if task == "multi_label" else np.log(p.shape[-1]))
    shown["uncertainty"] = {
        name: float(answer[name].mean()) for name in ("predictive_entropy", "mutual_information") if name in answer
    }
    if p.ndim == 1:
        kind = "labels" if task == "multi_label" else "classification"
        return shown | {"task": kind, "classes": _bars(p, deviation, names)}
    if task == "multi_label":  # the likeliest label of a pixel, of those that are likely at all
        best = np.where(p.max(-1) > 0.5, p.argmax(-1) + 1, 0)
        names, shares = ["none", *names], np.array([np.mean(best == 0), *np.mean(p > 0.5, (0, 1))])
    else:
        best = p.argmax(-1)
        shares = np.bincount(best.ravel(), minlength=p.shape[-1]) / best.size
    heat = answer["predictive_entropy"] if "predictive_entropy" in answer else 1 - p.max(-1)
    classes = [
        {"name": names[i], "probability": float(shares[i]), "colour": _COLOURS[i % len(_COLOURS)]}
        for i in np.argsort(-shares, kind="stable")
        if shares[i]
    ]
    return shown | {
        "task": "segmentation",
        "classes": classes,
        "mask": _png(best % len(_COLOURS), [tuple(bytes.fromhex(c[1:])) for c in _COLOURS]),
        "heat": _png(np.clip(heat / shown["most"] * 255, 0, 255), _scale()),
    }


def _bars(p: np.ndarray, deviation: np.ndarray | None, names: list[str]) -> list[dict[str, Any]]:
    bars = []
    for i in np.argsort(-p, kind="stable")[:20]:
        bars.append({"name": names[i], "probability": float(p[i])})
        if deviation is not None:
            bars[-1]["deviation"] = float(deviation[i])
    return bars


def _values(mean: np.ndarray, deviation: np.ndarray | None, names: list[str]) -> dict[str, Any]:
    """Numbers as rows; maps as the first output's and its deviation's, each between its own least and most."""
    if mean.ndim == 1:
        rows = [{"name": name, "value": float(value)} for name, value in zip(names, mean, strict=True)]
        for row, spread in zip(rows, deviation if deviation is not None else [], strict=False):
            row["deviation"] = float(spread)
        return {"task": "regression", "classes": rows}
    first = mean[..., 0]
    shown: dict[str, Any] = {"task": "map", "classes": [], "name": names[0]}
    shown |= {"least": float(first.min()), "top": float(first.max())}
    shown["mask"] = _png(_stretched(first), [(i, i, i) for i in range(256)])
    if deviation is not None:
        shown |= {"heat": _png(_stretched(deviation[..., 0]), _scale()), "spread": float(deviation[..., 0].max())}
    return shown


def _stretched(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / max(float(np.ptp(values)), 1e-12) * 255


def _scale() -> list[tuple[int, ...]]:
    places = np.linspace(0, 255, len(_HEAT))
    parts = [np.interp(np.arange(256), places, part) for part in zip(*_HEAT, strict=True)]
    return [tuple(int(part[i]) for part in parts) for i in range(256)]


def _png(values: np.ndarray, palette: list[tuple[int, ...]]) -> str:
    image = Image.fromarray(values.astype("uint8"))
    image.putpalette([part for colour in palette for part in colour])
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
