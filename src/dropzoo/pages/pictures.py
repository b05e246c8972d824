"""Pictures of training curves and of predictions with their uncertainty, and the ways to save a picture."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dropzoo.common.files import whole_file
from dropzoo.pages.style import BLUE, GREEN, GREY, ORANGE, plain

#: A sequence with one array per image, which may differ in size; or one array `(images, ...)`.
Arrays = Sequence[np.ndarray] | np.ndarray

_UNCERTAINTY = "magma"


def curves(histories: dict[str, dict[str, list[float]]]) -> Figure:
    """Draws the loss and the metric of several runs by epoch: training dashed, validation solid."""
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
    plain(figure.axes)
    axis.legend(frameon=False, fontsize=8)
    return figure


def class_probabilities(
    images: Arrays,
    labels: Arrays,
    out: Mapping[str, Arrays],
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draws images in a row, each with the probabilities of its classes and its uncertainty.

    Args:
        images: Arrays `(height, width, channels)`.
        labels: Ints, the true class of each image.
        out: Dict of the arrays that `MonteCarlo` returns for the images.
        class_names: Names of the classes, in their order; by default their numbers.
    """
    figure = Figure(figsize=(1.25 * len(images), 3.1), layout="constrained")
    axes = figure.subplots(2, len(images), height_ratios=(1.3, 1), squeeze=False)
    for i, image in enumerate(images):
        mean, spread = out["mean"][i], np.sqrt(out["variance"][i])
        predicted, truth = int(mean.argmax()), int(labels[i])
        axes[0, i].imshow(_showable(image), cmap="gray_r")
        said, is_ = (class_names[c] if class_names else str(c) for c in (predicted, truth))
        title = f"{said}\n(is {is_})" if max(len(said), len(is_)) > 3 else f"{said} (is {is_})"
        axes[0, i].set_title(title, fontsize=9, color=GREEN if predicted == truth else ORANGE)
        axes[0, i].axis("off")
        # Bars of more classes would be too narrow.
        shown = range(len(mean)) if len(mean) <= 20 else np.sort(np.argsort(-mean)[:20])
        colours = [BLUE if c == predicted else GREY for c in shown]
        axes[1, i].bar(
            range(len(shown)), mean[shown], yerr=spread[shown], color=colours, error_kw={"linewidth": 0.8}
        )
        axes[1, i].set(ylim=(0, 1.15), yticks=[])
        axes[1, i].set_xticks(range(len(shown)), labels=list(map(str, shown)))
        axes[1, i].tick_params(labelsize=5, length=0)
        axes[1, i].spines[["top", "right", "left"]].set_visible(False)
        entropy, information = out["predictive_entropy"][i], out["mutual_information"][i]
        axes[1, i].set_xlabel(f"H {entropy:.2f}, MI {information:.2f}", fontsize=7)
    return figure


def masks(images: Arrays, truth: Arrays | None, out: Mapping[str, Arrays]) -> Figure:
    """Draws a row for each image: the image, its true mask if known, the predicted mask, and its uncertainty.

    The images may differ in size. The maps of uncertainty have one scale, up to the largest value in all images.

    Args:
        images: Arrays `(height, width, channels)`.
        truth: Arrays `(height, width)`, the true masks, or None if they are not known.
        out: Dict of the arrays that `MonteCarlo` returns for the images, or of `mean` alone.
    """
    panels = ["image", *(["truth"] if truth is not None else []), "prediction"]
    panels += [name for name in ("predictive_entropy", "mutual_information") if name in out]
    size = 2.0
    figure = Figure(figsize=(size * len(panels), (size + 0.1) * len(images) + 0.3), layout="constrained")
    axes = figure.subplots(len(images), len(panels), squeeze=False)
    classes = out["mean"][0].shape[-1]
    for row, image in enumerate(images):
        for axis, panel in zip(axes[row], panels, strict=True):
            if panel == "image":
                axis.imshow(_showable(image), cmap="gray", vmin=0, vmax=1)
            elif panel in ("truth", "prediction"):
                mask = out["mean"][row].argmax(-1) if truth is None or panel == "prediction" else truth[row]
                axis.imshow(blend(image, mask, classes))
            else:
                most = max(max(float(each.max()) for each in out[panel]), 1e-6)
                axis.imshow(out[panel][row], cmap=_UNCERTAINTY, vmin=0, vmax=most)
                axis.text(
                    0.5,
                    -0.02,
                    f"mean {out[panel][row].mean():.3f}",
                    fontsize=7,
                    ha="center",
                    va="top",
                    transform=axis.transAxes,
                )
            axis.axis("off")
            if row == 0:
                axis.set_title(panel.replace("_", " "), fontsize=9)
    return figure


def blend(image: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """Returns an image as RGB in [0, 1], in which each class except the background has one of ten colours."""
    grey = np.repeat(_showable(image).reshape(*image.shape[:2], -1)[..., :3].mean(-1, keepdims=True), 3, axis=-1)
    palette = matplotlib.colormaps["tab10"](np.arange(classes - 1) % 10)[:, :3]
    counts = (mask >= 0) & (mask < classes)  # a label that is ignored has no colour
    mask = np.where(counts, mask, 0)
    colours = np.concatenate([np.zeros((1, 3)), palette])[mask]
    blended = np.where(mask[..., None] > 0, 0.4 * grey + 0.6 * colours, grey)
    return blended.clip(0, 1)  # matplotlib warns of 1 + 6e-9


def save(figure: Figure, path: Path) -> Path:
    """Writes a picture in the format of its suffix, and returns the path.

    Raises:
        ValueError: If matplotlib has no such format.
    """
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise ValueError(f"A picture's name must end in one of .{', .'.join(sorted(known))}. Received: {path}")
    with whole_file(path) as unfinished, matplotlib.rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(unfinished, dpi=150)
    return path


def as_uri(figure: Figure, kind: str = "png") -> str:
    """Returns a picture, `"png"` or `"svg"`, as a `data:` address, so that a page carries it within itself."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "dropzoo"}):  # equal figures give equal pages
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{'svg+xml' if kind == 'svg' else kind};base64,{data}"


def _showable(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else image[..., 0]
