"""Data sets on disk: reads a folder as a table, checks its files, and returns splits that read later."""

import dataclasses
import hashlib
import os
import warnings
from pathlib import Path

import numpy as np

from dropzoo.common.checks import check_choice
from dropzoo.common.words import count_of
from dropzoo.training.data.cache import MOST_OF_FILES
from dropzoo.training.data.files.broken import refuse_broken
from dropzoo.training.data.files.classes import find_classes
from dropzoo.training.data.files.headers import Facts, count_pages, read_facts
from dropzoo.training.data.files.layouts import read_layout
from dropzoo.training.data.files.masks import Meaning, look
from dropzoo.training.data.files.reader import Examples, Reader
from dropzoo.training.data.files.sizes import with_sizes
from dropzoo.training.data.files.splits import assign, find_doubles, in_turns, with_groups
from dropzoo.training.data.files.summary import histogram, summarise
from dropzoo.training.data.files.table import SPLITS, Reading, Sample, Table, some
from dropzoo.training.data.files.threads import map_files
from dropzoo.training.data.images import other_channels, read_image, read_mask, usual
from dropzoo.training.data.pipeline import Source, Split, numbered_split

_DECODING = 2  # counts the changes in how files are decoded, so that no cache of an older version is used
_USUAL_CHANNELS = 4
_MOST_TO_COMPARE = 2**28  # bytes of files of equal size whose contents are compared at every start


def read_folder(folder: Path, reading: Reading) -> Source:
    """Reads the table of a folder and checks its files; the pixels of images are read later.

    Raises:
        ValueError: If a file cannot be read, files do not fit together, or no training image is left.
    """
    check_choice(reading.broken, "broken", ("refuse", "skip"))
    check_choice(reading.pages, "pages", ("auto", "images", "channels"))
    table = read_layout(folder, reading)
    facts, table = _headers(table, reading)
    table = _pages(table, facts, reading)
    table = with_sizes(table, facts, reading)
    shape, dtype = _images(table, facts, reading)
    meaning, classes, names, found = find_classes(folder, table, facts, reading)
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
        ids="uint8" if len(names) <= 256 and 0 <= (ignored or 0) < 256 else "int32",
        ignore_class=ignored,
    )
    summary = summarise(table, names, facts, pixels, reader)
    for doubt in summary.doubts:
        warnings.warn(doubt, stacklevel=4)
    parts = {name: _split(reader, in_turns(table.samples, name)) for name in SPLITS}
    if parts["train"] is None and reading.test_split != 1:
        raise ValueError(
            f"No training image is left in {folder}. Received: validation_split={reading.validation_split}, "
            f"test_split={reading.test_split}. Pass smaller ones; if all images are for testing, pass "
            "test_split=1 (--test-split 1)"
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
    digest = hashlib.sha256(f"{_DECODING} {reading} {meaning}".encode())
    for sample in table.samples:
        digest.update(repr(sample).encode())
        for path in sample.files:
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _split(reader: Reader, numbers: list[int], empty: bool = False) -> Split | None:
    if not numbers and not empty:
        return None
    examples = Examples(reader, np.array(numbers, np.int64))
    return numbered_split(examples.read, len(numbers), examples.labels, examples.groups)


def _headers(table: Table, reading: Reading) -> tuple[dict[Path, Facts], Table]:
    """Returns the facts about all images, and the table without the broken files that are to be skipped."""
    paths = list(dict.fromkeys(sample.image for sample in table.samples))
    facts, broken = read_facts(paths, reading.pages)
    if reading.broken == "skip":
        broken |= _undecodable(table, facts)
    if broken and reading.broken == "refuse":
        refuse_broken(broken)
    if broken:
        samples = [sample for sample in table.samples if not set(sample.files) & broken.keys()]
        doubt = f"Left out {count_of(len(broken), 'file')} that cannot be read: {some(list(map(str, broken)))}"
        table = dataclasses.replace(table, samples=samples, doubts=[*table.doubts, doubt], unreadable=broken)
    if not table.samples:
        raise ValueError(
            f"None of the {len(paths):,} images in {table.root} is left, because files cannot be read. Leave out "
            "broken='skip' (--broken skip) to see which"
        )
    return facts, table


def _undecodable(table: Table, facts: dict[Path, Facts]) -> dict[Path, str]:
    """Decodes every image and mask, and returns the reasons for those that cannot be."""

    def reasons(sample: Sample) -> dict[Path, str]:
        page = 0 if facts[sample.image].pages > 1 else None
        found: dict[Path, str] = {}
        for path in sample.files:
            try:
                if path == sample.image:
                    read_image(path, page)
                elif path == sample.mask:
                    look(dataclasses.replace(sample, page=page), Meaning(found=False))
                else:
                    read_mask(path)
            except ValueError as error:
                if "Cannot read" in str(error):
                    found[path] = str(error)
        return found

    samples = [sample for sample in table.samples if sample.image in facts]
    return {path: text for found in map_files(reasons, samples) for path, text in found.items()}


def _pages(table: Table, facts: dict[Path, Facts], reading: Reading) -> Table:
    """Returns a table with a sample for each page of the stacks."""
    stacks = {sample.image for sample in table.samples if facts[sample.image].pages > 1}
    most = max(facts[sample.image].channels * facts[sample.image].is_open for sample in table.samples)
    if most > _USUAL_CHANNELS and not stacks and reading.pages == "auto":
        table.doubts.append(
            f"Images have {most} channels. If each channel is a separate image, such as a slice, pass "
            "pages='images' (--pages images); otherwise, pass pages='channels'"
        )
    if not stacks:
        return table
    samples: list[Sample] = []
    for sample in table.samples:
        count = facts[sample.image].pages
        if count > 1 and isinstance(sample.mask, Path) and (own := count_pages(sample.mask)) != count:
            raise ValueError(
                f"A mask must have a page for each page of its image. Received: {sample.image} with {count} "
                f"pages, and {sample.mask} with {own}"
            )
        samples += [dataclasses.replace(sample, page=page) for page in range(count)] if count > 1 else [sample]
    note = (
        f"{count_of(len(stacks), 'file is a stack', 'files are stacks')}, in which each page is an image: "
        f"{len(samples):,} images in all. If the pages are channels of one image, pass pages='channels' "
        "(--pages channels)"
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


def _compare(table: Table) -> None:
    """Adds a doubt if images with the same content are in the training set and in another."""
    doubles = find_doubles(table.samples, _MOST_TO_COMPARE)
    if doubles is None:
        table.notes.append(
            "So many files have equal sizes that they were not compared: it is not known whether training images "
            "are in another set too"
        )
    elif doubles:
        first, second = doubles[0]
        table.doubts.append(
            f"{count_of(len(doubles), 'image is', 'images are')} in the training set and in another set too, such "
            f"as {first.image} and {second.image} ({second.split})"
        )
