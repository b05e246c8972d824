"""The outlines of objects as GeoJSON, in pixels or, where the image says where it lies, on the map."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from scipy import ndimage

from dropzoo.common.files import whole_file
from dropzoo.predictions.summary import Row
from dropzoo.predictions.tags import Tags

_SCALE, _TIES, _KEYS = 33550, 33922, 34735
_EPSG = (3072, 2048)  # the keys of a projected and of a geographic system


def outlines(labels: np.ndarray, count: int) -> list[list[np.ndarray]]:
    """Returns the rings of each object: for each of its parts the outer one, and then its holes.

    Args:
        labels: Int array `(height, width)`: 0, or the number of the object from 1.
        count: Int, the number of objects.

    Returns:
        For each object a list of arrays `(points, 2)` of x and y. A pixel reaches from its number to the next.
    """
    found: list[list[np.ndarray]] = []
    for number, place in enumerate(ndimage.find_objects(labels, count), 1):
        if place is None:
            found.append([])
            continue
        mask = np.pad(labels[place] == number, 1).astype(float)
        kind = contourpy.FillType.OuterOffset
        filled: Any = contourpy.contour_generator(z=mask, fill_type=kind).filled(0.5, 2.0)
        points, offsets = filled
        start = np.array([place[1].start, place[0].start]) - 0.5  # the middle of a pixel is at a half
        rings: list[np.ndarray] = []
        for part, ends in zip(points, offsets, strict=True):
            rings += [part[a:b] + start for a, b in zip(ends[:-1], ends[1:], strict=True)]
        found.append(rings)
    return found


def write_geojson(path: Path, labels: np.ndarray, objects: Sequence[Row], tags: Tags) -> Path:
    """Writes a feature for each object, with its row as properties.

    Args:
        path: Path of the file.
        labels: Int array `(height, width)`.
        objects: The rows of the objects, in the order of their numbers.
        tags: The tags of the image, which may say where it lies.
    """
    features = []
    for row, rings in zip(objects, outlines(labels, len(objects)), strict=True):
        placed = [_placed(ring, tags).round(6).tolist() for ring in rings]
        shape = {"type": "Polygon", "coordinates": placed} if _is_one(rings) else _several(rings, placed)
        features.append({"type": "Feature", "properties": row, "geometry": shape})
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if code := _epsg(tags):
        content["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content) + "\n")
    return path


def _is_outer(ring: np.ndarray) -> bool:
    """Whether a ring runs around a part; a hole runs the other way."""
    x, y = ring[:, 0], ring[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) > 0


def _is_one(rings: Sequence[np.ndarray]) -> bool:
    return sum(map(_is_outer, rings)) == 1


def _several(rings: Sequence[np.ndarray], placed: Sequence[list[Any]]) -> dict[str, Any]:
    """The parts of an object that touches itself only at corners."""
    parts: list[list[Any]] = []
    for ring, points in zip(rings, placed, strict=True):
        if _is_outer(ring):
            parts.append([points])
        else:
            parts[-1].append(points)
    return {"type": "MultiPolygon", "coordinates": parts}


def _placed(ring: np.ndarray, tags: Tags) -> np.ndarray:
    """Points in pixels as points on the map, if the image says where it lies."""
    known = {tag[0]: tag[3] for tag in tags.geo}
    if _SCALE not in known or _TIES not in known:
        return ring
    (wide, tall), (column, row, _, x, y) = known[_SCALE][:2], known[_TIES][:5]
    return np.stack([x + (ring[:, 0] - column) * wide, y - (ring[:, 1] - row) * tall], -1)


def _epsg(tags: Tags) -> int | None:
    """The number of the coordinate system, or None."""
    keys = next((tag[3] for tag in tags.geo if tag[0] == _KEYS), ())
    entries = {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
    return next((entries[key] for key in _EPSG if 0 < entries.get(key, 0) < 32767), None)
