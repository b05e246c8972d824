"""The meaning of the numbers and colours in masks: found if it is certain; otherwise, an error asks for it."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from dropzoo.common.checks import unknown
from dropzoo.training.data.files.colours import Palette, read_palette
from dropzoo.training.data.files.drawing import counts_of, draw
from dropzoo.training.data.files.table import Drawn, Sample, some
from dropzoo.training.data.images import JPEG, read_alpha, read_image, read_mask

#: The values of `masks_as`; "palette" and "threshold" may be followed by "=" and a file or a number.
MEANINGS = ("ids", "instances", "threshold", "palette", "alpha")
_MOST_COLOURS = 256
_OF_PICTURES = 4  # channels
_AT_ONCE = 2**20


@dataclasses.dataclass(frozen=True)
class Meaning:
    """How the stored numbers of masks become class ids.

    Attributes:
        kind: One of `MEANINGS`.
        threshold: The number above which a pixel is foreground, for `"threshold"`; None for that of `ids`.
        palette: The colours of the classes, for `"palette"`. If None, they are the colours that the masks hold.
        found: Bool. Whether the user left the kind open, so that only masks that are certain are accepted.
    """

    kind: str = "ids"
    threshold: float | None = None
    palette: Palette | None = None
    found: bool = True

    def ids(self, stored: np.ndarray, path: Path) -> np.ndarray:
        """Returns the ids, `(height, width)`, of the stored numbers, `(height, width, channels)`.

        A `threshold` of None means 0 for masks of 0 and 1, 127 for other masks of 8 bits, and half of the largest
        value for the rest.
        """
        if self.kind == "palette" and self.palette is not None:
            return self.palette.ids(stored, path)
        if self.kind == "alpha":
            alpha = read_alpha(path)
            if alpha is None:
                raise ValueError(
                    f"The mask has no alpha channel. Received: masks_as='alpha' (--masks-as) with {path}"
                )
            return (alpha > 127).astype(np.uint8)
        values = one_channel(stored, path)
        if self.kind == "threshold":
            limit = self.threshold
            if limit is None:
                # A JPEG that is black all over may hold 1.
                zero = values.max() <= 1 and not _starts(path, JPEG)
                limit = 0 if zero else 127 if values.dtype.itemsize == 1 else float(values.max()) / 2
            return (values > limit).astype(np.uint8)
        if self.kind == "instances":
            return (values > 0).astype(np.uint8)
        return values

    def inside(self, path: Path) -> np.ndarray:
        """Returns where the object is in the file of its own mask, `(height, width)` of bool."""
        stored = read_mask(path)
        if self.kind in ("threshold", "alpha"):
            return self.ids(stored, path) > 0
        values = stored.max(-1)
        if self.found and ((values != 0) & (values != values.max(initial=0))).any():
            raise ValueError(
                f"The mask of a single object must hold 0 and one other value. Received: {path} with "
                f"{len(np.unique(values)):,} values. If it has greys in between, as after JPEG compression or "
                "resizing with interpolation, pass masks_as='threshold' (--masks-as threshold). If every value "
                "except 0 is the object, pass masks_as='instances' (--masks-as instances)"
            )
        return values > 0


@dataclasses.dataclass
class Values:
    """The values of one mask: its ids before they mean classes, and the number of pixels of each."""

    path: Path
    values: np.ndarray
    counts: np.ndarray
    is_jpeg: bool = False
    size: tuple[int, int] = (0, 0)
    dtype: str = "uint8"


def parse_meaning(text: str | None, colours: Palette | None, root: Path) -> Meaning:
    """Returns the meaning that `masks_as` says; a file of colours is named from here or from within `root`."""
    if text is None:
        return Meaning()
    kind, _, value = text.partition("=")
    if kind not in MEANINGS or (value and kind not in ("threshold", "palette")):
        raise unknown("value of `masks_as` (--masks-as)", text, [*MEANINGS, "threshold=128", "palette=FILE"])
    if kind == "threshold" and value:
        try:
            return Meaning(kind, float(value), found=False)
        except ValueError:
            raise ValueError(
                f"`masks_as` (--masks-as) needs a number after threshold=, as in threshold=128. Received: {text!r}"
            ) from None
    if kind == "palette":
        if value:
            file = Path(value).expanduser()
            colours = read_palette(root / file if not file.is_file() and (root / file).is_file() else file)
        return Meaning(kind, palette=colours, found=False)
    return Meaning(kind, found=False)


def read_ids(sample: Sample, meaning: Meaning) -> np.ndarray:
    """Returns the mask of a sample as ids, `(height, width)`."""
    if isinstance(sample.mask, Drawn):
        return draw(sample.mask, meaning.inside)
    path = Path(str(sample.mask))
    read = read_image if meaning.kind == "palette" else read_mask  # colours rather than the indices of a palette
    return meaning.ids(read(path, sample.page), path)


def one_channel(stored: np.ndarray, path: Path) -> np.ndarray:
    """Returns the numbers of a grey mask, `(height, width)`, or raises a ValueError for colours."""
    if stored.shape[2] > 1 and (stored != stored[..., :1]).any():
        colours = len(np.unique(stored.reshape(-1, stored.shape[2]), axis=0))
        few = colours <= _MOST_COLOURS
        raise ValueError(
            f"A mask must hold class ids in one channel. Received: {path} with {stored.shape[2]} channels and "
            f"{colours:,} colours. "
            + _pages_way(stored.shape[2])
            + (
                "If each colour is a class, pass masks_as='palette' (--masks-as palette), or 'palette=FILE' with "
                "a line for each class: red, green, blue, name"
                if few
                else "These are too many for classes: is the file a photograph, or a mask that was saved as JPEG "
                "or resized? Pass the original mask, or a file of colours, so that each pixel gets the class of "
                "the nearest colour: masks_as='palette=FILE' (--masks-as palette=FILE)"
            )
        )
    return stored[..., 0]


def _pages_way(channels: int) -> str:
    """Returns a sentence about stacks, for a mask of more channels than a picture has."""
    if channels <= _OF_PICTURES:
        return ""
    return "If it is a stack of masks, with one for each image of a stack, pass pages='images' (--pages images). "


def look(sample: Sample, meaning: Meaning) -> Values:
    """Returns the values of a sample's mask, and checks that they are whole numbers."""
    path = sample.image if isinstance(sample.mask, Drawn) else Path(str(sample.mask))
    if isinstance(sample.mask, Drawn) and (counts_by_class := counts_of(sample.mask)) is not None:
        numbers = [np.array(each, np.int64) for each in zip(*counts_by_class.items(), strict=True)]
        return Values(path, numbers[0], numbers[1], size=sample.mask.size)
    ids = read_ids(sample, meaning)
    if ids.dtype.kind == "f" or ids.dtype == bool:
        if (ids != np.floor(ids)).any() or not np.isfinite(ids).all():
            raise ValueError(
                f"A mask must hold whole numbers, 0 and above. Received: {path} with {ids.dtype} values. If it "
                "holds probabilities, pass masks_as='threshold=0.5' (--masks-as threshold=0.5)"
            )
        ids = ids.astype(np.int64)
    if ids.dtype == np.uint8:
        # `bincount` makes 64-bit numbers of all values, so it gets a few of a large mask at a time.
        flat = np.ascontiguousarray(ids).ravel()
        parts = (flat[start : start + _AT_ONCE] for start in range(0, flat.size, _AT_ONCE))
        counts = sum((np.bincount(part, minlength=256) for part in parts), np.zeros(256, np.int64))
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(ids, return_counts=True)
    jpeg = meaning.found and not isinstance(sample.mask, Drawn) and _starts(path, JPEG)
    return Values(path, values.astype(np.int64), counts, jpeg, (ids.shape[0], ids.shape[1]), str(ids.dtype))


def _starts(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def refuse_negative(found: list[Values], ignored: int | None) -> None:
    """Raises a ValueError for masks with numbers below 0, other than the label of pixels that do not count."""
    for each in found:
        low = [int(value) for value in each.values if value < 0 and value != ignored]
        if low:
            raise ValueError(
                f"A mask must hold whole numbers of at least 0. Received: {each.path} with {each.dtype} values "
                f"down to {low[0]}. If {low[0]} marks pixels that do not count, pass ignore_class={low[0]} "
                f"(--ignore-class {low[0]})"
            )


def settle(found: list[Values], ignored: int | None, meaning: Meaning) -> dict[int, int]:
    """Returns the class of each stored value, or raises a ValueError if the values are not certainly classes.

    Args:
        found: The values of all masks.
        ignored: The label of pixels that do not count, which stays as it is.
        meaning: The meaning by which they were read.
    """
    values = np.unique(np.concatenate([each.values for each in found]))
    classes = [int(value) for value in values if value != ignored]
    if not meaning.found:
        return {value: value for value in classes}
    _refuse_jpeg(found)
    if meaning.kind == "ids":
        _refuse_mixtures(found, ignored)
    if classes and classes[-1] in (255, 65535) and not any(classes[:-1]):
        return {value: int(value > 0) for value in classes}
    _refuse_smooth(found, classes)
    _refuse_spread(found, classes)
    if classes and classes[-1] == 255 and 0 < classes[-2] < 254:
        raise ValueError(
            f"Masks hold ids up to {classes[-2]}, and 255. As a class id, 255 would mean 256 classes. If 255 "
            "marks pixels that do not count, pass ignore_class=255 (--ignore-class 255). If it is a class, pass "
            "masks_as='ids' (--masks-as ids)"
        )
    _refuse_instances(found, classes)
    return {value: value for value in classes}


def _refuse_jpeg(found: list[Values]) -> None:
    for each in found:
        if each.is_jpeg and len(each.values) > 1:
            raise ValueError(
                f"JPEG does not keep class ids: save the original masks as PNG instead. Received: {each.path} "
                f"with {len(each.values)} values from {each.values[0]} to {each.values[-1]}. If the masks are "
                "black and white, pass masks_as='threshold' (--masks-as threshold)"
            )


def _refuse_mixtures(found: list[Values], ignored: int | None) -> None:
    """Raises a ValueError if some masks are stored as 0 and 1, and others as 0 and 255."""
    tops: dict[int, Path] = {}
    for each in found:
        values = each.values[each.values != ignored]
        if len(values) and values[-1]:
            if len(values) > 2 or (len(values) == 2 and values[0]):
                return
            tops[int(values[-1])] = each.path
    if len(tops) > 1 and tops.keys() <= {1, 255, 65535}:
        stored = " and ".join(f"0 and {value} in {path}" for value, path in sorted(tops.items()))
        raise ValueError(
            "All masks of two classes must be stored in the same way: as 0 and 1, or as 0 and 255. Received: "
            f"{stored}. Convert some of them, or pass masks_as='instances' (--masks-as instances), so that every "
            "value except 0 is foreground"
        )


def _refuse_smooth(found: list[Values], classes: list[int]) -> None:
    """Raises a ValueError for black and white masks with greys in between, as JPEG and smooth resizing make."""
    if len(classes) < 3 or found[0].dtype != "uint8" or classes[-1] < 192:
        return
    total: Counter[int] = Counter()
    for each in found:
        total.update(dict(zip(each.values.tolist(), each.counts.tolist(), strict=True)))
    dark, light = (sum(n for v, n in total.items() if low <= v <= high) for low, high in ((0, 63), (192, 255)))
    whites = sum(value >= 192 for value in classes)
    if dark + light >= 0.8 * sum(total.values()) and (whites > 1 or len(classes) > 100) and dark and light:
        raise ValueError(
            f"Masks hold {len(classes)} values, nearly all close to black or white, as after JPEG compression or "
            f"resizing with interpolation. Received: {found[0].path} and {len(found) - 1} more. Pass "
            "masks_as='threshold' (--masks-as threshold) to use pixels above 127 as foreground"
        )


def _refuse_spread(found: list[Values], classes: list[int]) -> None:
    """Raises a ValueError for a few greys that are far apart, such as 0, 128 and 255, one for each class."""
    steps = np.diff([0, *classes])
    if len(classes) < 2 or classes[-1] < 64 or len(classes) > 16 or (steps[steps > 0] < 16).any():
        return
    raise ValueError(
        f"Masks hold {len(classes)} values that are far apart: {', '.join(map(str, classes))}. As class "
        f"ids, they would mean {classes[-1] + 1} classes. Received: {found[0].path} and {len(found) - 1} more. If "
        "each grey is a class, pass masks_as='palette' (--masks-as palette), which numbers them in this order. If "
        "the values are class ids, pass masks_as='ids' (--masks-as ids)"
    )


def _refuse_instances(found: list[Values], classes: list[int]) -> None:
    """Raises a ValueError for masks that number the objects of each image."""
    ids = [each.values[each.values > 0] for each in found]
    ids = [each for each in ids if len(each)]
    if len(classes) < 8 or len(ids) < 2:
        return
    holders = Counter(int(value) for each in ids for value in each)
    own = sum(count == 1 for count in holders.values()) > 0.5 * len(holders)
    runs = [bool(each[-1] - each[0] == len(each) - 1 and each[0] == 1) for each in ids]
    tops = {int(each[-1]) for each in ids}
    numbered = sum(runs) >= 0.8 * len(runs) and len(tops) > max(1, len(ids) // 4)
    if own or numbered or len(classes) > 256:
        most = max(ids, key=len)
        raise ValueError(
            f"Masks hold {len(classes)} values, up to {len(most)} in one image, and look as if each object had "
            f"its own number. Received: {some([str(each.path) for each in found], 2)}. If all values "
            "except 0 are one class, pass masks_as='instances' (--masks-as instances). If they are classes, pass "
            "masks_as='ids' (--masks-as ids)"
        )
