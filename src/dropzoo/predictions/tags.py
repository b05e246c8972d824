"""The tags of an image file for the size and the place of its pixels, which a mask of the same size keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dropzoo.common.images import SIDEWAYS
from dropzoo.common.tiff import GEO, orientation_of

_CM = 2.54


@dataclass(frozen=True)
class Tags:
    """The tags of an image file that its masks keep.

    Attributes:
        resolution: Pixels per unit, across and down; None if the file does not say.
        unit: `"inch"`, `"centimeter"` or `"none"`, the unit of the resolution.
        geo: The tags of GeoTIFF, as `tifffile` takes them.
        note: The description that ImageJ reads, with the unit of the resolution; None if there is none.
    """

    resolution: tuple[float, float] | None = None
    unit: str = "none"
    geo: tuple[tuple[Any, ...], ...] = ()
    note: str | None = None

    def of_tiff(self) -> dict[str, Any]:
        """Returns the tags as arguments of `tifffile.imwrite`."""
        more: dict[str, Any] = {"extratags": list(self.geo), "metadata": None}
        if self.resolution:
            more |= {"resolution": self.resolution, "resolutionunit": self.unit.upper()}
        return more | ({"description": self.note} if self.note else {})

    def of_png(self) -> dict[str, Any]:
        """Returns the tags that PNG has as arguments of `PIL.Image.save`."""
        if not self.resolution or self.unit == "none":
            return {}
        factor = _CM if self.unit == "centimeter" else 1.0
        return {"dpi": tuple(each * factor for each in self.resolution)}


def tags_of_tiff(page: Any) -> Tags:
    """Returns the tags of a `tifffile.TiffPage`."""
    tags = page.keyframe.tags if page.keyframe is not None else page.tags
    geo = tuple(
        (code, int(tags[code].dtype), tags[code].count, tags[code].value, True) for code in GEO if code in tags
    )
    resolution, unit = None, "none"
    if "XResolution" in tags and "YResolution" in tags:
        x, y = (_ratio(tags[name].value) for name in ("XResolution", "YResolution"))
        x, y = (y, x) if orientation_of(page) in SIDEWAYS else (x, y)
        resolution = (x, y) if x > 0 and y > 0 else None
        unit = {2: "inch", 3: "centimeter"}.get(int(tags.valueof("ResolutionUnit", 2)), "none")
    return Tags(resolution, unit, geo, _note(str(tags.valueof("ImageDescription", "") or "")))


def tags_of_picture(path: Path) -> Tags:
    """Returns the tags of a PNG, JPEG or BMP file."""
    with Image.open(path) as image:
        dpi = image.info.get("dpi")
    if not dpi or not all(float(each) > 0 for each in dpi):
        return Tags()
    return Tags((float(dpi[0]), float(dpi[1])), "inch")


def _ratio(value: float | tuple[int, int]) -> float:
    above, below = value if isinstance(value, tuple) else (value, 1)
    return float(above) / float(below) if below else 0.0


def _note(description: str) -> str | None:
    """The lines of a description of ImageJ that say how large a pixel is."""
    if not description.startswith("ImageJ="):
        return None
    lines = description.splitlines()
    kept = [line for line in lines[1:] if line.partition("=")[0] in ("unit", "spacing", "xorigin", "yorigin")]
    return "\n".join([lines[0], "images=1", *kept, ""]) if kept else None
