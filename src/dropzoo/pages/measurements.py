"""The page of measurements: the numbers of each image, and its objects outlined by how certain they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from dropzoo.pages import page, pictures

# Okabe and Ito's colours, which colour-blind people can tell apart: sure, likely, doubtful.
_COLOURS = (("#009e73", 0.9, "at least 0.9"), ("#e69f00", 0.5, "0.5 to 0.9"), ("#d55e00", 0.0, "under 0.5"))
_MOST = 512  # pixels of the longer side of an image on the page


@dataclass(frozen=True)
class Outlined:
    """An image with its objects.

    Attributes:
        title: Str, the name of the image.
        image: Float array `(height, width, channels)` in [0, 1].
        rings: For each object its outlines, arrays `(points, 2)` of x and y.
        certainty: Float array `(objects,)`, the probability that each object exists.
        doubt: Float, by which the images on a page are chosen.
    """

    title: str
    image: np.ndarray
    rings: list[list[np.ndarray]]
    certainty: np.ndarray
    doubt: float


def save_page(
    path: Path, rows: Sequence[Mapping[str, object]], images: Sequence[Outlined], calibrated: bool
) -> Path:
    """Writes the page of measurements.

    Args:
        path: Path of the HTML file.
        rows: A row for each image and class.
        images: The images to show.
        calibrated: Bool, whether the intervals were calibrated on known images.
    """
    heads = ("image", "class", "count", "90 %", "area", "90 %", "perimeter", "90 %")
    cells = []
    for row in rows:
        name = f"{row['image']}#{row['page']}" if "page" in row else str(row["image"])
        numbers = [text for number in ("count", "area", "perimeter") for text in _with_interval(row, number)]
        cells.append([name, str(row["class"]), *numbers])
    shown = {each.title: pictures.as_uri(_figure(each)) for each in images}
    legend = [(colour, said) for colour, _, said in _COLOURS]
    values = {"title": "Measurements", "heads": heads, "rows": cells, "pictures": shown}
    return page.write(path, "measurements.html", **values, legend=legend, calibrated=calibrated)


def _with_interval(row: Mapping[str, object], number: str) -> tuple[str, str]:
    return f"{row[number]:.6g}", f"{row[f'{number}_low']:.6g} to {row[f'{number}_high']:.6g}"


def _figure(outlined: Outlined) -> Figure:
    step = max(1, -(-max(outlined.image.shape[:2]) // _MOST))
    image = outlined.image[::step, ::step]
    height, width = outlined.image.shape[:2]
    size = np.clip((24 * width / height, 6 * height / width), 0.5, (6, 24))  # very long ones are stretched
    figure = Figure(figsize=tuple(size))
    axis = figure.add_axes((0, 0, 1, 1))
    shown = pictures.blend(image, np.zeros(image.shape[:2], int), 2)
    axis.imshow(shown, extent=(0, width, height, 0), aspect="auto")
    for i, (colour, least, _) in enumerate(_COLOURS):
        most = _COLOURS[i - 1][1] if i else 2.0
        chosen = [rings for rings, p in zip(outlined.rings, outlined.certainty, strict=True) if least <= p < most]
        lines = [ring for rings in chosen for ring in rings]
        axis.add_collection(LineCollection(lines, colors=colour, linewidths=1.6))
    axis.axis("off")
    return figure
