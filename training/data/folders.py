"""Data sets on disk: reads a folder as a table, checks its files, and returns splits that read later."""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dropzoo.common.checks import check_choice
from dropzoo.training.data.cache import MOST_OF_FILES
from dropzoo.training.data.files.colours import Palette, find_colours, palette_of, read_names, read_palette
from dropzoo.training.data.files.headers import Facts, read_facts
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.masks import Meaning, Values, look, parse_meaning, settle
from dropzoo.training.data.files.reader import Examples, Reader
from dropzoo.training.data.files.splits import assign, find_doubles, in_turns, with_groups
from dropzoo.training.data.files.summary import histogram, summarise
from dropzoo.training.data.files.table import SPLITS, Reading, Sample, Table, some
from dropzoo.training.data.files.threads import map_files
from dropzoo.training.data.images import other_channels, read_alpha, read_image, usual
from dropzoo.training.data.pipeline import Source, Split, numbered_split

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
_MOST_TO_COMPARE = 2**28  # bytes of files whose contents are compared at every start


def read_folder(folder: Path, reading: Reading) -> Source:
    """Reads the table of a folder and checks its files; the pixels of images are read later.

    Raises:
        ValueError: If a file cannot be read, files do not fit together, or no training image is left.
    """
    check_choice(reading.broken, "broken", ("refuse", "skip"))
    check_choice(reading.pages, "pages", ("auto", "images", "channels"))
    table = read_layout(folder, reading)
    facts, table = _headers(table, reading)
    table = _pages(table, facts)
    shape, dtype = _images(table, facts, reading)
    meaning, classes, names, found = _classes(folder, table, facts, reading)
    table = assign(with_groups(table, reading.group_by), reading)
    _compare(table)
    ignored = reading.ignore_class
    pixels = [histogram(each.values, each.counts, classes, ignored) for each in found] if found else None
    reader = Reader(
        samples=table.samples,
        facts=facts,
        shape=shape,
        dtype=dtype,
        value_range=reading.value_range,
        meaning=meaning,
        classes=classes,
        ids="uint8" if max(len(names) - 1, ignored or 0) < 256 else "int32",
        ignore_class=ignored,
    )
    summary = summarise(table, names, facts, pixels, reader)
    for doubt in summary.doubts:
        warnings.warn(doubt, stacklevel=4)
    parts = {name: _split(reader, in_turns(table.samples, name)) for name in SPLITS}
    if parts["train"] is None and reading.test_split != 1:
        raise ValueError(
            f"No training image is left in {folder}. Received: validation_split={reading.validation_split}"
        )
    examined = [facts[sample.image] for sample in table.samples]
    decoded = sum(each.height * each.width * each.channels for each in examined) * np.dtype(dtype).itemsize
    return Source(
        name=Path(os.path.abspath(folder)).name,  # also for "."
        task=table.task,
        class_names=names,
        image_shape=shape,
        train=parts["train"] or _split(reader, [], empty=True),  # type: ignore[arg-type]
        validation=parts["validation"],
        test=parts["test"],
        ignore_class=ignored,
        summary=summary,
        check=lambda: refuse_broken(reader.find_broken()),
        key=lambda: _key(table, reading, f"{meaning} {classes} {names}"),
        is_large=decoded > MOST_OF_FILES,
    )


def _key(table: Table, reading: Reading, meaning: str) -> str:
    """Returns text that changes with the files of a table and with how they are read."""
    digest = hashlib.sha256(f"{reading} {meaning}".encode())
    for sample in table.samples:
        digest.update(repr(sample).encode())
        for path in (sample.image, sample.mask):
            if isinstance(path, Path):
                status = path.stat()
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _split(reader: Reader, numbers: list[int], empty: bool = False) -> Split | None:
    if not numbers and not empty:
        return None
    examples = Examples(reader, np.array(numbers, np.int64))
    return numbered_split(examples.read, len(numbers), examples.labels, examples.groups)


def refuse_broken(broken: dict[Path, str]) -> None:
    """Raises the error for files that cannot be read, if there are any."""
    if not broken:
        return
    advice = "Replace or remove the file{}, or pass broken='skip' (--broken skip) to go on without"
    advice = advice.format("" if len(broken) == 1 else "s")
    if len(broken) == 1:
        path, reason = next(iter(broken.items()))
        if "Received: " in reason:  # the file is whole, and something else is wrong with it
            raise ValueError(reason)
        said = reason.partition("The decoder says: ")[2] or reason
        raise ValueError(f"Cannot read {path}. {advice}. The decoder says: {said}")
    named = "; ".join(str(path) for path in list(broken)[:20])
    more = f" and {len(broken) - 20:,} more" if len(broken) > 20 else ""
    raise ValueError(f"Cannot read {len(broken):,} files. {advice}. Received: {named}{more}")


def _headers(table: Table, reading: Reading) -> tuple[dict[Path, Facts], Table]:
    """Returns the facts about all images, and the table without the broken files that are to be skipped."""
    paths = list(dict.fromkeys(sample.image for sample in table.samples))
    facts, broken = read_facts(paths, reading.pages)
    if reading.broken == "skip":
        broken |= _undecodable(table, facts)
    if broken and reading.broken == "refuse":
        refuse_broken(broken)
    if broken:
        samples = [sample for sample in table.samples if sample.image not in broken]
        doubt = f"Left out {len(broken):,} files that cannot be read: {some(list(map(str, broken)))}"
        table = dataclasses.replace(table, samples=samples, doubts=[*table.doubts, doubt], unreadable=broken)
    if not table.samples:
        raise ValueError(f"None of the {len(paths):,} images in {table.root} can be read")
    return facts, table


def _undecodable(table: Table, facts: dict[Path, Facts]) -> dict[Path, str]:
    """Decodes every image and mask, and returns the reasons for those that cannot be."""

    def reason(sample: Sample) -> str:
        page = 0 if facts[sample.image].pages > 1 else None
        try:
            read_image(sample.image, page)
            if isinstance(sample.mask, Path):
                look(dataclasses.replace(sample, page=page), Meaning(found=False))
        except ValueError as error:
            return str(error) if "Cannot read" in str(error) else ""
        return ""

    samples = [sample for sample in table.samples if sample.image in facts]
    found = map_files(reason, samples)
    return {sample.image: text for sample, text in zip(samples, found, strict=True) if text}


def _pages(table: Table, facts: dict[Path, Facts]) -> Table:
    """Returns a table with a sample for each page of the stacks."""
    stacks = {sample.image for sample in table.samples if facts[sample.image].pages > 1}
    if not stacks:
        return table
    samples: list[Sample] = []
    for sample in table.samples:
        count = facts[sample.image].pages
        samples += [dataclasses.replace(sample, page=page) for page in range(count)] if count > 1 else [sample]
    note = (
        f"{len(stacks):,} files are stacks, of which each page is an image: {len(samples):,} images in all. "
        f"If the "
        "pages are channels of one image, pass pages='channels' (--pages channels)"
    )
    return dataclasses.replace(table, samples=samples, doubts=[*table.doubts, note])


def _images(
    table: Table, facts: dict[Path, Facts], reading: Reading
) -> tuple[tuple[int | None, int | None, int], str]:
    """Returns the common shape and type of the images, or raises the error for images that do not go together."""
    first = table.samples[0].image
    channels = {facts[sample.image].channels for sample in table.samples}
    if channels != {1, 3} or not reading.num_channels:
        for sample in table.samples:
            if facts[sample.image].channels != facts[first].channels:
                other = facts[sample.image].channels
                raise other_channels(first, facts[first].channels, sample.image, other, channels == {1, 3})
    dtypes = {facts[sample.image].dtype for sample in table.samples}
    dtypes = {"uint8" if each == "bool" else each for each in dtypes}
    if dtypes - {"uint8", "uint16"} and reading.value_range is None:
        odd = [s for s in table.samples if facts[s.image].dtype not in ("uint8", "uint16", "bool")]
        map_files(lambda sample: usual(read_image(sample.image, sample.page), sample.image), odd)
    dtype = (
        dtypes.pop()
        if len(dtypes) == 1 and dtypes <= {"uint8", "uint16"} and not reading.value_range
        else "float32"
    )
    sizes = {(facts[sample.image].height, facts[sample.image].width) for sample in table.samples}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    mixed = channels == {1, 3} and reading.num_channels
    return (
        height,
        width,
        reading.num_channels if mixed and reading.num_channels else facts[first].channels,
    ), dtype


def _classes(
    folder: Path, table: Table, facts: dict[Path, Facts], reading: Reading
) -> tuple[Meaning, dict[int, int], tuple[str, ...], list[Values]]:
    """Returns the meaning of the masks, the class of each value, the names of the classes, and the values."""
    if table.task == "classification":
        for name in ("masks_as", "ignore_class", "mask_suffix"):
            if getattr(reading, name) is not None:
                raise ValueError(
                    f"`{name}` is for masks. Received: {name}={getattr(reading, name)!r} for {folder}"
                )
        return Meaning(), {}, _label_names(table, reading), []
    palette, palette_file = _colours_beside(folder)
    meaning = parse_meaning(reading.masks_as, palette, folder)
    if meaning.kind == "palette" and meaning.palette is None:
        files = [sample for sample in table.samples if isinstance(sample.mask, Path)]
        meaning = dataclasses.replace(meaning, palette=_occurring(files))
        table.notes.append("The classes of colours are in the order of their codes, #000000 first")
    elif meaning.kind == "palette" and reading.masks_as == "palette":
        table.notes.append(f"The colours of the classes are those of {palette_file}")
    found = map_files(lambda sample: look(sample, meaning), table.samples)
    _refuse_sizes(table, facts, found)
    _refuse_alpha(table, found, meaning)
    classes = _drawn(found) if table.class_names else settle(found, reading.ignore_class, meaning)
    names = _mask_names(folder, table, reading, meaning, classes, found)
    present = {int(value) for each in found for value in each.values}
    if reading.ignore_class is not None and reading.ignore_class not in present:
        table.doubts.append(f"No pixel has the label ignore_class={reading.ignore_class} (--ignore-class)")
    return meaning, classes, names, found


def _drawn(found: list[Values]) -> dict[int, int]:
    return {int(value): int(value) for each in found for value in each.values}


def _occurring(samples: list[Sample]) -> Palette:
    """Returns the colours in all masks, or raises a ValueError if they are too many for classes."""

    def colours(sample: Sample) -> Palette:
        return find_colours([read_image(Path(str(sample.mask)), sample.page)])

    found = sorted({colour for each in map_files(colours, samples) for colour in each.colours})
    if len(found) > 256:
        raise ValueError(
            f"Masks hold {len(found):,} colours, too many for classes. Pass a file of colours, of which the "
            f"nearest "
            "counts: masks_as='palette=FILE' (--masks-as palette=FILE), with a line for each class: red, green, "
            "blue, name"
        )
    return palette_of(found)


def _refuse_sizes(table: Table, facts: dict[Path, Facts], found: list[Values]) -> None:
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
            f"{each.size[0]}x{each.size[1]}{more}"
        )


def _refuse_alpha(table: Table, found: list[Values], meaning: Meaning) -> None:
    """Raises a ValueError if all masks are of one value, and their shapes are in the alpha channel."""
    if not meaning.found or any(len(each.values) > 1 for each in found):
        return
    for sample in table.samples[:20]:
        alpha = read_alpha(sample.mask) if isinstance(sample.mask, Path) else None
        if alpha is not None and len(np.unique(alpha)) > 1:
            raise ValueError(
                f"Masks are of one colour, and their shapes are in the alpha channel. Received: "
                f"{sample.mask}. Pass "
                "masks_as='alpha' (--masks-as alpha) to count what is opaque as foreground"
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
    if sorted(wanted) != sorted(table.class_names):
        raise ValueError(
            f"`class_names` must hold the names of the classes, in any order: {', '.join(table.class_names)}. "
            f"Received: {', '.join(wanted)}"
        )
    order = [wanted.index(name) for name in table.class_names]
    table.samples[:] = [dataclasses.replace(sample, label=order[sample.label]) for sample in table.samples]
    return tuple(wanted)


def _asked_names(root: Path, reading: Reading) -> list[str]:
    """Returns the names that the user gives: a list, text with commas, or a file."""
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
            f"`class_names` (--class-names) must be names with commas, or a file. Received: {names!r}, "
            f"which is no file"
        )
    return [name.strip() for name in names.split(",")]


def _mask_names(
    folder: Path,
    table: Table,
    reading: Reading,
    meaning: Meaning,
    classes: dict[int, int],
    found: list[Values],
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
            f"{some(list(map(str, outside)))}, at {pixels:,} pixels, in {some(list(map(str, holders)), 2)}. "
            f"If one of "
            f"them marks pixels that do not count, pass it: ignore_class={outside[-1]} (--ignore-class "
            f"{outside[-1]})"
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
            table.notes.append(f"The names of the classes are those of {path}")
            return tuple(names)
        void = f". If {count - 1} marks pixels that do not count, pass --ignore-class {count - 1}"
        table.doubts.append(
            f"{path} names {len(names)} classes, but masks hold ids up to {count - 1}; it is not used"
            + void * (len(names) == count - 1)
        )
    return tuple(str(number) for number in range(count))


def _compare(table: Table) -> None:
    """Adds a doubt if images of one content are in the training set and in another."""
    if sum(sample.image.stat().st_size for sample in table.samples) > _MOST_TO_COMPARE:
        return
    doubles = find_doubles(table.samples)
    if doubles:
        first, second = doubles[0]
        table.doubts.append(
            f"{len(doubles):,} images are in the training set and again in another, such as {first.image} and "
            f"{second.image} ({second.split})"
        )
