"""The classes of a folder: what its masks mean, which class each value is, and the names of the classes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dropzoo.common.words import count_of
from dropzoo.training.data.files.broken import refuse_broken
from dropzoo.training.data.files.colours import Palette, find_colours, palette_of, read_names, read_palette
from dropzoo.training.data.files.headers import Facts
from dropzoo.training.data.files.masks import Meaning, Values, look, parse_meaning, refuse_negative, settle
from dropzoo.training.data.files.overlaps import doubt_overlaps
from dropzoo.training.data.files.table import Drawn, Reading, Sample, Table, some
from dropzoo.training.data.files.threads import map_files
from dropzoo.training.data.images import orientation_of, read_alpha, read_image

_MOST_LOOKED_AT = 2000  # masks of single objects that are read at the start
# Files beside masks that name the classes, and those that also have their colours.
_NAMES = ("classes.txt", "class_names.txt", "codes.txt", "labels.txt", "names.txt", "classes.csv")
_COLOURS = (
    "class_dict.csv",
    "label_colors.txt",
    "label_colours.txt",
    "labelmap.txt",
    "colors.txt",
    "colours.txt",
    "palette.txt",
)


def find_classes(
    folder: Path, table: Table, facts: dict[Path, Facts], reading: Reading
) -> tuple[Meaning, dict[int, int], tuple[str, ...], list[Values]]:
    """Returns the meaning of the masks, the class of each value, the names of the classes, and the values."""
    if table.task == "classification":
        for name in ("masks_as", "ignore_class", "mask_suffix"):
            if getattr(reading, name) is not None:
                raise ValueError(
                    f"`{name}` is for masks, but {folder} holds class labels: leave it out. Received: "
                    f"{name}={getattr(reading, name)!r}"
                )
        return Meaning(), {}, _label_names(table, reading), []
    palette, palette_file = _colours_beside(folder)
    meaning = parse_meaning(reading.masks_as, palette, folder)
    _refuse_drawn(table, meaning)
    doubt_overlaps(table, meaning)
    if meaning.kind == "palette" and meaning.palette is None:
        files = [sample for sample in table.samples if isinstance(sample.mask, Path)]
        meaning = dataclasses.replace(meaning, palette=_occurring(files))
        table.notes.append(
            "Each colour is a class; the classes are in the order of the colour codes, #000000 first"
        )
    elif meaning.kind == "palette" and reading.masks_as == "palette":
        table.notes.append(f"The colours of the classes come from {palette_file}")
    found = _looked_at(table, meaning, facts, reading.broken == "skip")
    refuse_negative(found, reading.ignore_class)
    _refuse_sizes(table, facts, found)
    _refuse_alpha(table, found, meaning)
    classes = _drawn(table, found) if table.class_names else settle(found, reading.ignore_class, meaning)
    names = _mask_names(folder, table, reading, meaning, classes, found, palette_file)
    present = {int(value) for each in found for value in each.values}
    if reading.ignore_class is not None and reading.ignore_class not in present:
        table.doubts.append(f"No pixel has the label ignore_class={reading.ignore_class} (--ignore-class)")
    return meaning, classes, names, found


def _looked_at(table: Table, meaning: Meaning, facts: dict[Path, Facts], every: bool) -> list[Values]:
    """Returns the values of all masks, or raises the error that names all masks that cannot be read.

    There may be tens of thousands of masks of single objects, whose values are known. Unless `every` is true, only
    some of them are read to estimate the shares of the classes; the others have no values here.
    """
    chosen = set(range(len(table.samples))) if every else _some_images(table)

    def values(number: int) -> Values | ValueError:
        sample = table.samples[number]
        if number not in chosen:
            none = np.array([], np.int64)
            return Values(sample.image, none, none, size=facts[sample.image][:2])
        try:
            return look(sample, meaning)
        except ValueError as error:
            return error

    found: list[Values] = []
    broken: dict[Path, str] = {}
    for sample, each in zip(table.samples, map_files(values, range(len(table.samples))), strict=True):
        if isinstance(each, Values):
            found.append(each)
        elif "Cannot read" not in str(each):
            raise each
        else:
            broken[sample.mask if isinstance(sample.mask, Path) else sample.image] = str(each)
    refuse_broken(broken)
    return found


def _some_images(table: Table) -> set[int]:
    """Returns the numbers of the samples whose masks are looked at: some of those with files of single objects."""
    files = [len(sample.files) - 1 if isinstance(sample.mask, Drawn) else 0 for sample in table.samples]
    if sum(files) <= _MOST_LOOKED_AT:
        return set(range(len(files)))
    step = sum(files) / _MOST_LOOKED_AT
    joined = [number for number, count in enumerate(files) if count]
    chosen = {joined[int(place)] for place in np.arange(0, len(joined), step)}
    table.notes.append(
        f"The shares of the classes were estimated from {len(chosen):,} of the images with objects; "
        "`dropzoo inspect` counts all images"
    )
    return chosen | {number for number, count in enumerate(files) if not count}


def _refuse_drawn(table: Table, meaning: Meaning) -> None:
    """Raises a ValueError for a meaning that masks of objects cannot have."""
    drawn = [sample for sample in table.samples if isinstance(sample.mask, Drawn)]
    if not drawn or meaning.found or meaning.kind == "instances":
        return
    if not any(len(sample.files) > 1 for sample in drawn):
        raise ValueError(
            "The masks are outlines or run lengths, which hold no values. Received: masks_as="
            f"{meaning.kind!r} (--masks-as). Leave it out, or pass 'instances' to score each object separately"
        )
    if meaning.kind in ("ids", "palette"):
        raise ValueError(
            "Each file is the mask of a single object, so it cannot hold class ids or colours. Received: masks_as="
            f"{meaning.kind!r} (--masks-as). Leave it out; for several classes, draw the objects of an image into "
            "one PNG of class ids"
        )


def _drawn(table: Table, found: list[Values]) -> dict[int, int]:
    """Returns the classes of masks that are drawn."""
    drawn = {
        label for sample in table.samples if isinstance(sample.mask, Drawn) for label, _ in sample.mask.shapes
    }
    return {number: number for number in sorted(drawn | {int(value) for each in found for value in each.values})}


def _occurring(samples: list[Sample]) -> Palette:
    """Returns the colours in all masks, or raises a ValueError if they are too many for classes."""

    def colours(sample: Sample) -> Palette:
        return find_colours([read_image(Path(str(sample.mask)), sample.page)])

    found = sorted({colour for each in map_files(colours, samples) for colour in each.colours})
    if len(found) > 256:
        raise ValueError(
            f"Masks hold {len(found):,} colours, too many for classes. Pass a file of colours, so that each pixel "
            "gets the class of the nearest colour: masks_as='palette=FILE' (--masks-as palette=FILE), with a line "
            "for each class: red, green, blue, name"
        )
    return palette_of(found)


def _refuse_sizes(table: Table, facts: dict[Path, Facts], found: list[Values]) -> None:
    """Raises a ValueError for a mask of another size than its image; doubts masks of images that are turned."""
    wrong = [
        (sample, each)
        for sample, each in zip(table.samples, found, strict=True)
        if each.size != (facts[sample.image].height, facts[sample.image].width)
    ]
    if wrong:
        sample, each = wrong[0]
        more = f", and {len(wrong) - 1:,} more pairs" if len(wrong) > 1 else ""
        raise ValueError(
            f"A mask must have its image's height and width. Received: {sample.image} of "
            f"{facts[sample.image].height}x{facts[sample.image].width} with {each.path} of "
            f"{each.size[0]}x{each.size[1]}{more}. {facts[sample.image].way_to_size}"
        )
    turned = [
        str(sample.image)
        for sample in table.samples
        if facts[sample.image].turned and not any(orientation_of(file) > 1 for file in sample.files[1:2])
    ]
    if turned:
        turned = list(dict.fromkeys(turned))
        table.doubts.append(
            f"{count_of(len(turned), 'image is', 'images are')} turned upright by the orientation in the file, "
            f"but the masks are not, because their files state none: {some(turned, 2)}. `dropzoo inspect --out` "
            "shows whether images and masks fit"
        )


def _refuse_alpha(table: Table, found: list[Values], meaning: Meaning) -> None:
    """Raises a ValueError if all masks are of one value, and their shapes are in the alpha channel."""
    if not meaning.found or any(len(each.values) > 1 for each in found):
        return
    for sample in table.samples[:20]:
        alpha = read_alpha(sample.mask) if isinstance(sample.mask, Path) else None
        if alpha is not None and len(np.unique(alpha)) > 1:
            raise ValueError(
                f"The masks have a single colour, and the shapes are in their alpha channel. Received: "
                f"{sample.mask}. "
                "Pass masks_as='alpha' (--masks-as alpha) to use opaque pixels as foreground"
            )


def _colours_beside(folder: Path) -> tuple[Palette | None, Path | None]:
    for path in _beside(folder, _COLOURS):
        try:
            return read_palette(path), path
        except ValueError:
            continue
    return None, None


def _beside(folder: Path, names: Sequence[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _label_names(table: Table, reading: Reading) -> tuple[str, ...]:
    """Returns the names of the classes of labels; `class_names` sets their order, as in Keras."""
    wanted = _asked_names(table.root, reading)
    if not wanted:
        return table.class_names
    if len(set(wanted)) < len(wanted) or not set(table.class_names) <= set(wanted):
        raise ValueError(
            f"`class_names` must hold the names of the classes, in any order: {', '.join(table.class_names)}. "
            f"Received: {', '.join(wanted)}"
        )
    absent = [name for name in wanted if name not in table.class_names]
    if absent:  # as in a test folder that holds some classes of a model
        table.doubts.append(f"`class_names` has classes without images: {some(absent)}")
    order = [wanted.index(name) for name in table.class_names]
    table.samples[:] = [dataclasses.replace(sample, label=order[sample.label]) for sample in table.samples]
    return tuple(wanted)


def _asked_names(root: Path, reading: Reading) -> list[str]:
    """Returns the names that the user gives: a list, comma-separated text, or a file."""
    names = reading.class_names
    if names is None:
        return []
    if not isinstance(names, str):
        return [str(name) for name in names]
    for path in (Path(names).expanduser(), root / names):
        if path.is_file():
            return read_names(path)
    if "," not in names:
        raise ValueError(
            f"`class_names` (--class-names) must be comma-separated names, or a file. Received: "
            f"{names!r}, which is not a file"
        )
    return [name.strip() for name in names.split(",")]


def _mask_names(
    folder: Path,
    table: Table,
    reading: Reading,
    meaning: Meaning,
    classes: dict[int, int],
    found: list[Values],
    palette_file: Path | None,
) -> tuple[str, ...]:
    """Returns the names of the classes of masks: those that the user gives, or a file beside them, or numbers."""
    ids = [number for number in classes.values() if number != reading.ignore_class]
    count = max([*ids, 1]) + 1
    asked = _asked_names(folder, reading)
    if asked and len(asked) < count:
        outside = [value for value, number in classes.items() if number >= len(asked)]
        holders = [each.path for each in found if np.isin(each.values, outside).any()]
        pixels = sum(int(each.counts[np.isin(each.values, outside)].sum()) for each in found)
        raise ValueError(
            f"Labels must be those of the {len(asked)} classes of `class_names`, 0 to {len(asked) - 1}. Received: "
            f"{some(list(map(str, outside)))}, at {pixels:,} pixels, in {some(list(map(str, holders)), 2)}. If "
            f"one of them marks pixels that do not count, pass it: ignore_class={outside[-1]} (--ignore-class "
            f"{outside[-1]})"
        )
    if len(asked) > count and meaning.kind == "palette" and reading.masks_as == "palette" and not palette_file:
        raise ValueError(
            f"`class_names` has {len(asked)} names, but masks have only {count} colours, which are numbered "
            "in the order of the colour codes. Name the colour of each class in a file: masks_as='palette=FILE' "
            "(--masks-as palette=FILE)"
        )
    if asked:
        return tuple(asked)
    if table.class_names:
        return table.class_names
    if meaning.kind == "palette" and meaning.palette is not None:
        return meaning.palette.names
    for path in _beside(folder, (*_NAMES, *_COLOURS)):
        names = list(read_palette(path).names) if path.name in _COLOURS else read_names(path)
        if len(names) >= count and len(names) <= count + 64:
            table.notes.append(f"The names of the classes come from {path}")
            return tuple(names)
        void = (
            f". If {count - 1} marks pixels that do not count, pass ignore_class={count - 1} (--ignore-class "
            f"{count - 1})"
        )
        table.doubts.append(
            f"{path} names {len(names)} classes, but masks hold ids up to {count - 1}; the file is not used"
            + void * (len(names) == count - 1)
        )
    return tuple(str(number) for number in range(count))
