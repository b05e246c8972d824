"""Lists of the images of each split: train.txt, val.txt and test.txt."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dropzoo.common.words import count_of
from dropzoo.training.data.files.listing import folders_in
from dropzoo.training.data.files.names import FileNames
from dropzoo.training.data.files.table import SPLITS, Table, some, split_of, written_in

_BOTH = "trainval"  # the images of train.txt and val.txt together; read if there is no train.txt


def find_lists(root: Path) -> dict[str, Path]:
    """Returns the lists in a folder, in its folders, or in `ImageSets/...`, by their splits."""
    places = [root, *folders_in(root), *sorted(root.glob("ImageSets/*/"))]
    stems = [name for names in SPLITS.values() for name in names if name != _BOTH]
    found: dict[str, Path] = {}
    for stems_now in ([_BOTH], stems):  # a list of only training images replaces that of both
        for place in places:
            found |= {split_of(stem): path for stem in stems_now if (path := place / f"{stem}.txt").is_file()}
    return found


def listed(images: Sequence[Path], lists: dict[str, Path]) -> tuple[dict[Path, str], list[str]]:
    """Returns the splits of the images in the lists, and the lines that name no image or several images."""
    lines = [
        (split, line.strip(), path)
        for split, path in lists.items()
        for line in written_in(path).splitlines()
        if line.strip()
    ]
    # Each line is, or begins with, the name of an image, with or without its folders and an ending.
    found = FileNames(lambda: images).find_all([(line, line.split()[0]) for _, line, _ in lines])
    splits = {image: split for image, (split, _, _) in zip(found, lines, strict=True) if image is not None}
    lost = [f"{line} in {path.name}" for image, (_, line, path) in zip(found, lines, strict=True) if image is None]
    return splits, lost


def with_split_lists(table: Table) -> Table:
    """Returns a table with the splits of the files train.txt, val.txt and test.txt, if they exist."""
    if not table.root.is_dir() or any(sample.split for sample in table.samples):
        return table
    lists = find_lists(table.root)
    if not lists:
        return table
    splits, lost = listed(list(dict.fromkeys(sample.image for sample in table.samples)), lists)
    if lost:
        table.doubts.append(
            count_of(len(lost), "line in the lists of splits matches", "lines in the lists of splits match")
            + f" no image, or several images, and will be ignored: {some(lost)}"
        )
    if not splits:
        return table
    names = " and ".join(path.name for path in lists.values())
    # If there is only a list of validation files, as in fastai's sets, the other files are for training.
    rest = "" if "train" in lists else "train"
    kept = [
        dataclasses.replace(sample, split=splits.get(sample.image, rest))
        for sample in table.samples
        if sample.image in splits or rest
    ]
    table.notes.append(f"The split comes from {names}")
    if len(kept) < len(table.samples):
        table.doubts.append(
            count_of(len(table.samples) - len(kept), "image is", "images are")
            + f" in none of {names} and will be left out"
        )
    return dataclasses.replace(table, samples=kept)
