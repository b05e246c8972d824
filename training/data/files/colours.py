"""Colours that stand for classes: files that list them, and the ids of coloured masks."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dropzoo.training.data.files.table import written_in


@dataclass(frozen=True)
class Palette:
    """The colours of classes.

    Attributes:
        colours: Red, green and blue of each class, from 0 to 255.
        names: The names of the classes.
        exact: Bool. Whether a colour that is not listed is an error; otherwise a pixel gets the nearest.
    """

    colours: tuple[tuple[int, int, int], ...]
    names: tuple[str, ...]
    exact: bool = True

    def ids(self, stored: np.ndarray, path: Path) -> np.ndarray:
        """Returns the ids, `(height, width)`, of a coloured mask, `(height, width, channels)`."""
        pixels = np.repeat(stored, 3, axis=2) if stored.shape[2] == 1 else stored[..., :3]
        codes = (pixels.astype(np.int64) * (65536, 256, 1)).sum(-1)
        known = np.array([red * 65536 + green * 256 + blue for red, green, blue in self.colours])
        order = np.argsort(known)
        places = np.searchsorted(known[order], codes).clip(max=len(known) - 1)
        ids = order[places]
        strange = known[ids] != codes
        if strange.any():
            colours = np.unique(pixels[strange], axis=0)
            if self.exact and len(colours) <= 256:
                shown = ", ".join(_code(*colour) for colour in colours[:5])
                raise ValueError(
                    f"Each colour of a mask must be a class. Received: {path} with {int(strange.sum()):,} "
                    f"pixels of "
                    f"{len(colours)} other colours: {shown}. Add them to the file of colours"
                )
            distances = ((pixels[strange][:, None].astype(int) - np.array(self.colours)) ** 2).sum(-1)
            ids[strange] = distances.argmin(-1)
        return ids.astype(np.uint8 if len(known) <= 256 else np.int32)


def _code(red: int, green: int, blue: int) -> str:
    if red == green == blue > 255:  # the grey value of a mask of 16 bits
        return str(red)
    return f"#{red:02x}{green:02x}{blue:02x}"


def read_palette(path: Path) -> Palette:
    """Reads a file of colours, with a line for each class: `red,green,blue,name`, in this or another order.

    The lines of CamVid (`64 128 64 Animal`), of CVAT (`car:255,0,0::`) and of tables with a head (`name,r,g,b`)
    are understood, and colours may be written as `#4080ff`.

    Raises:
        ValueError: If there is no such file, or no colour in it.
    """
    if not path.is_file():
        raise ValueError(
            f"No such file of colours: {path}. Expected a line for each class: red, green, blue, name"
        )
    found = [each for line in written_in(path).splitlines() if (each := _colour(line)) is not None]
    colours = [colour for colour, _ in found]
    if not colours or len(set(colours)) < len(colours):
        wrong = "no colours" if not colours else "the same colour twice"
        raise ValueError(f"Expected a line for each class: red, green, blue, name. Received: {wrong} in {path}")
    names = [name or _code(*colour) for colour, name in found]
    return Palette(tuple(colours), tuple(names))


def _colour(line: str) -> tuple[tuple[int, int, int], str] | None:
    """Returns the colour and the name in a line, or None for a comment, a head or an empty line."""
    line = line.strip()
    if not line or line.startswith("# "):
        return None
    if found := re.search(r"#([0-9a-fA-F]{6})\b", line):
        code = int(found[1], 16)
        name = re.sub(r"[\s,;:\t]+", " ", line.replace(found[0], " ")).strip()
        return (code >> 16, code >> 8 & 255, code & 255), name
    numbers = re.search(r"(?<![\w.])(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})(?![\w.])", line)
    if numbers is None or max(map(int, numbers.groups())) > 255:
        return None
    rest = (line[: numbers.start()] + " " + line[numbers.end() :]).replace('"', "")
    name = " ".join(word for word in re.split(r"[\s,;:]+", rest) if word and not word.isdigit())
    red, green, blue = (int(each) for each in numbers.groups())
    return (red, green, blue), name


def find_colours(masks: list[np.ndarray]) -> Palette:
    """Returns the colours that occur in masks, in the order of their codes, such as #000000."""
    colours: set[tuple[int, int, int]] = set()
    for stored in masks:
        if stored.shape[2] == 1:
            colours |= {(grey, grey, grey) for grey in map(int, np.unique(stored))}
            continue
        codes = np.unique((stored[..., :3].astype(np.int64) * (65536, 256, 1)).sum(-1)).tolist()
        colours |= {(code >> 16, code >> 8 & 255, code & 255) for code in codes}
    return palette_of(sorted(colours))


def palette_of(colours: Sequence[tuple[int, int, int]]) -> Palette:
    """Returns colours as classes that are named by their codes, or by their grey values if these have 16 bits."""
    are_grey = all(red == green == blue for red, green, blue in colours)
    if are_grey and max((red for red, _, _ in colours), default=0) > 255:
        return Palette(tuple(colours), tuple(str(red) for red, _, _ in colours))
    return Palette(tuple(colours), tuple(_code(*colour) for colour in colours))


def read_names(path: Path) -> list[str]:
    """Reads names of classes from a file: one name per line, or a table with a column `name` or `class`.

    A number in front of the name, as in `3,car`, is the id of the class, and the lines are put into this order.
    """
    text = written_in(path)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("# ")]
    rows = list(csv.reader(lines, delimiter="\t" if "\t" in text else ";" if ";" in text else ","))
    head = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((head.index(name) for name in ("name", "class_name", "class", "label") if name in head), None)
    if column is not None and len(rows) > 1 and len(head) > 1:
        return [row[column].strip() for row in rows[1:]]
    numbered = [re.match(r"(\d+)\s*[:,;\t ]\s*(.+)", line) for line in lines]
    if lines and all(numbered):
        pairs = sorted((int(each[1]), each[2].strip()) for each in numbered if each)
        if [number for number, _ in pairs] in (list(range(len(pairs))), list(range(1, len(pairs) + 1))):
            return [name for _, name in pairs]
    return lines
