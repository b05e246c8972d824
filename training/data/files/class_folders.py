"""Layouts of classes: a folder for each."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from dropzoo.common.words import count_of
from dropzoo.training.data.files.listing import Listing, folders_in, has_images, is_litter
from dropzoo.training.data.files.pair_folders import ENDS, split_in
from dropzoo.training.data.files.roles import holds_masks, refuse_no_classes
from dropzoo.training.data.files.table import Reading, Sample, Table, some, split_of
from dropzoo.training.data.images import IMAGE_SUFFIXES

_FEW = 8
_TEXTS = {".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".mat", ".pdf", ".html", ".yaml", ".yml", ".py", ""}


def class_folders(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of class folders."""
    folders = folders_in(root)
    if len(folders) < 2 or not any(has_images(each) for each in folders):
        return None
    beside = [each for each in folders if not has_images(each) and (_holds_texts(each) or holds_masks(each))]
    classes = [each for each in folders if each not in beside]
    if len(classes) < 2 or all(_is_of_one_image(each) for each in classes):
        return None
    refuse_no_classes(root, [each for each in classes if has_images(each)])
    table = read_classes(root, classes, listing)
    if beside:
        table.doubts.append(f"Folders without images are not classes: {some([str(each) for each in beside])}")
    return table


def _is_of_one_image(folder: Path) -> bool:
    """Returns whether a folder holds a single image, of its own name: `ID/images/ID.png`."""
    names = [path.stem for path in itertools.islice(folder.rglob("*"), _FEW) if path.is_file()]
    return names == [folder.name]


def _holds_texts(folder: Path) -> bool:
    """Returns whether a folder holds files, and all of them are descriptions: lists, tables, annotations."""
    files = [path for path in folder.rglob("*") if path.is_file() and not is_litter(path.name)]
    return bool(files) and all(path.suffix.lower() in _TEXTS for path in files)


def read_classes(root: Path, folders: list[Path], listing: Listing) -> Table:
    samples = []
    for label, folder in enumerate(folders):
        found = listing.images(folder)
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(
                f"No images in {folder}. Expected files ending in {endings}. Remove the folder if it is not a "
                f"class"
            )
        samples += [Sample(path, label, split=split_in(path, folder)) for path in found]
    if not all(sample.split for sample in samples):
        samples = [dataclasses.replace(sample, split="") for sample in samples]
    table = Table(root, samples, tuple(folder.name for folder in folders))
    _doubt_masks(table)
    _doubt_inner_classes(table, folders)
    return table


def _doubt_masks(table: Table) -> None:
    known = {(sample.image.parent, sample.image.stem) for sample in table.samples}
    masks = [
        sample.image
        for sample in table.samples
        if any(
            (sample.image.parent, sample.image.stem.removesuffix(end)) in known
            for end in ENDS
            if sample.image.stem.endswith(end)
        )
    ]
    if masks:
        table.doubts.append(
            count_of(len(masks), "image looks like a mask: it has", "images look like masks: they have")
            + f" the name of another image plus an ending, such as {masks[0]}. Each folder is read as a class of "
            "images. To train on masks, pass `masks` (--masks), such as '**/*_mask*'"
        )


def _doubt_inner_classes(table: Table, folders: Sequence[Path]) -> None:
    """Adds a doubt if all class folders hold the same folders, which may be the classes."""
    inner = [{each.name for each in folders_in(folder)} for folder in folders]
    shared = sorted(set.intersection(*inner)) if inner else []
    if len(shared) > 1 and not any(split_of(name) for name in shared):
        table.doubts.append(
            f"All class folders hold the same subfolders: {some(shared)}. If the subfolders are the classes, pass "
            f"one of the class folders as the data, such as {folders[0]}"
        )
