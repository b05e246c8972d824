"""Pictures: training curves, the sites on the architecture, predictions with their uncertainty."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from dropzoo import models

# Okabe and Ito's palette: told apart by all readers.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8f98"
_UNCERTAINTY = "magma"
_SHORT = {"dropout": "Dropout", "spatial_dropout2d": "Spatial", "drop_block2d": "DropBlock"}


def curves(histories: dict[str, dict[str, list[float]]]) -> Figure:
    """Training (dashed) and validation (solid) curves of several runs: the loss, and the metric."""
    first = next(iter(histories.values()))
    shown = [m for m in ("loss", "mean_iou", "accuracy") if m in first][:2]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for (name, history), colour in zip(histories.items(), (GREY, BLUE, ORANGE, GREEN), strict=False):
            epochs = range(1, len(history[metric]) + 1)
            axis.plot(epochs, history[metric], "--", color=colour, linewidth=1.2, label=f"{name}, training")
            if f"val_{metric}" in history:
                axis.plot(epochs, history[f"val_{metric}"], color=colour, linewidth=2, label=f"{name}, validation")
        axis.set(xlabel="epoch", title=metric.replace("_", " "))
        if metric == "loss":
            axis.set_yscale("log")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return figure


def sites(model: keras.Model) -> Figure:
    """The sites of a model as boxes, in a U or in a line; those with dropout are filled."""
    found = models.list_sites(model)
    places = _layout([site.name for site in found])
    width, height = max(x for x, _ in places.values()) + 1, 1 - min(y for _, y in places.values())
    figure = Figure(figsize=(1.15 * width, 0.95 * height), layout="constrained")
    axis = figure.subplots()
    for site in found:
        x, y = places[site.name]
        corner, rounded = (x - 0.46, y - 0.34), "round,pad=0,rounding_size=0.08"
        colours: dict[str, Any] = {
            "facecolor": BLUE if site.spec else "#eef0f3",
            "edgecolor": BLUE if site.spec else "#c9ced6",
        }
        axis.add_patch(FancyBboxPatch(corner, 0.92, 0.68, boxstyle=rounded, **colours))
        size = "x".join("?" if n is None else str(n) for n in site.shape[1:])
        lines = [_short_name(site.name), size, *([_what(site.spec)] if site.spec else [])]
        for i, line in enumerate(lines):
            at = y + 0.2 * ((len(lines) - 1) / 2 - i)
            soft = site.spec is None and i > 0
            axis.text(x, at, line, ha="center", va="center", fontsize=7, color=_ink(site.spec, soft))
    axis.set(xlim=(-0.5, width - 0.5), ylim=(0.5 - height, 0.5), aspect="equal")
    axis.axis("off")
    return figure


def uncertain_digits(images: np.ndarray, labels: np.ndarray, out: dict[str, np.ndarray]) -> Figure:
    """A row of images: each with its class probabilities, the predicted one in colour, and its uncertainty."""
    figure = Figure(figsize=(1.25 * len(images), 2.9), layout="constrained")
    axes = figure.subplots(2, len(images), height_ratios=(1.3, 1))
    for i, image in enumerate(images):
        mean, spread = out["mean"][i], np.sqrt(out["variance"][i])
        predicted = int(mean.argmax())
        axes[0, i].imshow(image.squeeze(), cmap="gray_r")
        axes[0, i].set_title(
            f"{predicted} (is {labels[i]})", fontsize=9, color=GREEN if predicted == labels[i] else ORANGE
        )
        axes[0, i].axis("off")
        colours = [BLUE if c == predicted else GREY for c in range(len(mean))]
        axes[1, i].bar(range(len(mean)), mean, yerr=spread, color=colours, error_kw={"linewidth": 0.8})
        axes[1, i].set(ylim=(0, 1.15), xticks=range(len(mean)), yticks=[])
        axes[1, i].tick_params(labelsize=5, length=0)
        axes[1, i].spines[["top", "right", "left"]].set_visible(False)
        axes[1, i].set_xlabel(f"MI {out['mutual_information'][i]:.2f}", fontsize=8)
    return figure


def masks(images: np.ndarray, truth: np.ndarray | None, out: dict[str, np.ndarray]) -> Figure:
    """A row an image: the image, the true mask where known, the predicted one, and its uncertainty."""
    panels = ["image", *(["truth"] if truth is not None else []), "prediction"]
    panels += [name for name in ("predictive_entropy", "mutual_information") if name in out]
    size = 2.0
    figure = Figure(figsize=(size * len(panels), (size + 0.1) * len(images) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), len(panels), squeeze=False)
    classes = out["mean"].shape[-1]
    for row, image in enumerate(images):
        for axis, panel in zip(axes[row], panels, strict=True):
            if panel == "image":
                axis.imshow(_showable(image), cmap="gray", vmin=0, vmax=1)
            elif panel in ("truth", "prediction"):
                mask = out["mean"][row].argmax(-1) if panel == "prediction" else truth[row]  # type: ignore[index]
                axis.imshow(blend(image, mask, classes))
            else:
                axis.imshow(out[panel][row], cmap=_UNCERTAINTY, vmin=0, vmax=max(float(out[panel].max()), 1e-6))
            axis.axis("off")
            if row == 0:
                axis.set_title(panel.replace("_", " "), fontsize=9)
    return figure


def blend(image: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """The image with each class but the background in a colour of its own, as RGB in [0, 1]."""
    grey = np.repeat(_showable(image).reshape(*image.shape[:2], -1)[..., :3].mean(-1, keepdims=True), 3, axis=-1)
    palette = matplotlib.colormaps["tab10"](np.arange(classes - 1) % 10)[:, :3]
    colours = np.concatenate([np.zeros((1, 3)), palette])[mask]
    return np.where(mask[..., None] > 0, 0.4 * grey + 0.6 * colours, grey)


def save_png(figure: Figure, path: Path) -> None:
    """Writes under a temporary name first."""
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)


def as_html(figure: Figure, alt: str) -> str:
    """An `<img>` that carries the picture within itself."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}">'


def _showable(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else image[..., 0]


def _layout(names: list[str]) -> dict[str, tuple[float, float]]:
    """Places by site: a row for each level of a U, its skips in the middle; one row for all without encoder."""
    stages = [re.match(r"(encoder|decoder|bottleneck|skip)(\d*)", name) for name in names]
    depth = max((int(m[2]) for m in stages if m and m[1] == "encoder"), default=0)
    left = max((sum(n.startswith(f"encoder{level}_") for n in names) for level in range(1, depth + 1)), default=0)
    filled: dict[str, int] = {}
    places: dict[str, tuple[float, float]] = {}
    for name, stage in zip(names, stages, strict=True):
        part, number = (stage[1], int(stage[2] or 0)) if stage else ("", 0)
        start, row = {
            "encoder": (0.0, number - 1),
            "skip": (left + 0.3, number - 1),
            "bottleneck": (left - 0.2, depth),
            "decoder": (left + 1.6, depth - number),
        }.get(part, (0.0, 0))
        group = f"{part}{row}" if part else "decoder0" if depth else ""  # the head goes on where the decoder ends
        if not part and depth:
            start = left + 1.6
        places[name] = (start + filled.get(group, 0), -row)
        filled[group] = filled.get(group, 0) + 1
    return places


def _short_name(name: str) -> str:
    return re.sub(r"^(encoder|decoder|bottleneck|module)", lambda m: m[0][:3], name)


def _what(spec: str) -> str:
    name, _, arguments = spec.partition(":")
    return f"{_SHORT.get(name, name)} {arguments.partition(',')[0]}"


def _ink(filled: Any, soft: bool = False) -> str:
    if filled:
        return "white"
    return GREY if soft else "#222831"
