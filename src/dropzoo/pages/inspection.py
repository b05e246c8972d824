"""The page of `dropzoo inspect`: how a data set was read, and some of its images with their labels."""

import base64
import io
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from dropzoo.common.words import count_of
from dropzoo.pages import page
from dropzoo.pages.pictures import blend
from dropzoo.runs.description import cells, facts
from dropzoo.training import DataInfo
from dropzoo.training.data.files.summary import Summary

_EACH = 12  # images of a split
_SIDE = 192  # pixels


def save_sheet(path: Path, summary: Summary, info: DataInfo) -> Path:
    """Writes the page, and returns its path.

    Args:
        path: Path of the page.
        summary: How the data set was read.
        info: The facts of the data set.
    """
    heads, rows = cells(summary)
    sheets = {}
    for split in ("train", "validation", "test"):
        chosen = _choose(summary, split)
        name = "training" if split == "train" else split
        if chosen:
            sheets[count_of(len(chosen), f"{name} image")] = [_figure(summary, number, info) for number in chosen]
    masks = summary.task == "segmentation"
    key = [(name, _colour(number)) for number, name in enumerate(info.class_names) if number][:30] if masks else []
    unread = [f"Cannot be read: {file} ({reason})" for file, reason in list(summary.unreadable.items())[:50]]
    return page.write(
        path,
        "inspection.html",
        title=str(summary.place),
        facts=[*facts(summary), *summary.notes],
        heads=heads,
        rows=rows,
        wrong=[*unread, *summary.doubts, *summary.hints],
        sheets=sheets,
        key=key,
    )


def _choose(summary: Summary, split: str) -> list[int]:
    """Returns the numbers of some samples of a split, of all classes, from its beginning to its end."""
    by_label: dict[int, list[int]] = {}
    for number, sample in enumerate(summary.samples):
        if sample.split == split:
            by_label.setdefault(sample.label, []).append(number)
    if not by_label:
        return []
    each = max(1, _EACH // len(by_label))
    chosen = [
        numbers[place]
        for _, numbers in sorted(by_label.items())
        for place in sorted({round(step) for step in np.linspace(0, len(numbers) - 1, min(each, len(numbers)))})
    ]
    return chosen[: 4 * _EACH]


def _figure(summary: Summary, number: int, info: DataInfo) -> dict[str, str]:
    """Returns the picture of a sample, and its caption."""
    sample = summary.samples[number]
    image, mask = summary.example(number)
    pixels = image / np.float32(np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1)
    if image.dtype != np.uint8 and pixels.max() > pixels.min():
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min())  # 12 bits in 16 would be black
    shown = pixels if pixels.shape[2] in (1, 3) else pixels[..., :1]
    step = max(1, max(shown.shape[:2]) // _SIDE)
    shown = shown[::step, ::step]
    caption = sample.image.name if sample.page is None else f"{sample.image.name}, page {sample.page + 1}"
    if mask is None:
        rgb, caption = (
            np.repeat(shown, 3 // shown.shape[2], axis=2),
            f"{caption}: {info.class_names[sample.label]}",
        )
    else:
        rgb = blend(shown, mask[::step, ::step], info.num_classes)
        present = [info.class_names[value] for value in np.unique(mask) if value < info.num_classes]
        caption = f"{caption}: {', '.join(present[:4])}{' ...' if len(present) > 4 else ''}"
    buffer = io.BytesIO()
    Image.fromarray((255 * rgb).clip(0, 255).astype(np.uint8)).save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"uri": f"data:image/png;base64,{data}", "caption": caption}


def _colour(number: int) -> str:
    return matplotlib.colors.to_hex(matplotlib.colormaps["tab10"]((number - 1) % 10))
