"""The outlines of objects as GeoJSON, in pixels, or in map coordinates if the image has them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from scipy import ndimage

from dropzoo.common.files import whole_file
from dropzoo.predictions.summary import Row
from dropzoo.predictions.tags import Tags

_SCALE, _TIES, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_RASTER, _POINT = 1025, 2  # the key of what a pixel is, and its value if a pixel is a point
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
        tags: The tags of the image, which may hold its map coordinates.
    """
    features = []
    place, keys = _place(tags), _keys(tags)
    for row, rings in zip(objects, outlines(labels, len(objects)), strict=True):
        placed = [place(ring).round(6).tolist() for ring in rings]
        shape = {"type": "Polygon", "coordinates": placed} if _is_one(rings) else _several(rings, placed)
        features.append({"type": "Feature", "properties": row, "geometry": shape})
    content: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if place is not _unplaced and (code := next((keys[k] for k in _EPSG if 0 < keys.get(k, 0) < 32767), None)):
        content["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
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


def _unplaced(ring: np.ndarray) -> np.ndarray:
    """Points in pixels, for an image without map coordinates."""
    return ring


def _place(tags: Tags) -> Callable[[np.ndarray], np.ndarray]:
    """The function from points in pixels to points on the map, if the image has map coordinates."""
    known = {tag[0]: tag[3] for tag in tags.geo}
    if _MATRIX in known:
        matrix = np.reshape(known[_MATRIX], (4, 4))[:2]
    elif _SCALE in known and _TIES in known:
        (wide, tall), (column, row, _, x, y) = known[_SCALE][:2], known[_TIES][:5]
        matrix = np.array([[wide, 0, 0, x - column * wide], [0, -tall, 0, y + row * tall]])
    else:
        return _unplaced
    # Numbers of pixels are those of their middles if a pixel is a point, and else those of their corners.
    shift = 0.5 if _keys(tags).get(_RASTER) == _POINT else 0.0
    return lambda ring: (ring - shift) @ matrix[:, :2].T + matrix[:, 3]


def _keys(tags: Tags) -> dict[int, int]:
    """The keys of the coordinate system that are numbers."""
    keys = next((tag[3] for tag in tags.geo if tag[0] == _KEYS), ())
    return {keys[i]: keys[i + 3] for i in range(4, len(keys) - 3, 4) if keys[i + 1] == 0}
