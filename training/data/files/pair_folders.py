"""Layouts of images and masks: two folders, or one in which names tell them apart."""

import dataclasses
import re
from pathlib import Path

from dropzoo.common.words import count_of
from dropzoo.training.data.files.listing import Listing, folders_in, has_images
from dropzoo.training.data.files.lists import find_lists, listed
from dropzoo.training.data.files.objects import IMAGES, NAMES, samples_of
from dropzoo.training.data.files.roles import choose_masks
from dropzoo.training.data.files.table import Drawn, Reading, Table, some, split_of

#: The ends of names of masks, after the name of the image, if both are in one folder.
ENDS = ("_mask", "_seg", "_label", "_labels", "_gt", "_annotation")


def images_and_masks(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of `images/` and `masks/`, or of folders of such names; both may hold given splits."""
    folders = {each.name.lower(): each for each in folders_in(root)}
    images = next((folders[name] for name in IMAGES if name in folders), None)
    if images is None or not has_images(images):
        return None
    masks = choose_masks([folder for folder in folders.values() if folder != images])
    return None if masks is None else read_pairs(images, masks, reading, listing, root)


def read_pairs(images: Path, masks: Path, reading: Reading, listing: Listing, root: Path | None = None) -> Table:
    root = root or images.parent
    files = [_drop_previews(listing.images(folder)) for folder in (images, masks)]
    return paired(root, (images, masks), (files[0], files[1]), reading)


def paired(root: Path, roots: tuple[Path, Path], files: tuple[list[Path], list[Path]], reading: Reading) -> Table:
    """Returns the table of images and masks.

    If some images have no mask, those that no list of a split names, or whose split has no masks, are left out.
    """
    images, masks = files
    doubts = []
    lists = find_lists(root)
    if "train" in lists:  # as VOC has it: most images have no mask, and lists name those that have one
        named = listed(images, lists)[0].keys()
        if named and len(masks) < len(images):
            doubts += [
                count_of(len(images) - len(named), "image is", "images are")
                + " not in the list of any split and will be left out"
            ]
            images = [image for image in images if image in named]
    splits = {split_in(mask, roots[1]) for mask in masks}
    bare = [image for image in images if (split := split_in(image, roots[0])) and split not in splits]
    if bare and len(bare) < len(images) and "" not in splits:
        doubts += [
            count_of(len(bare), "image is", "images are")
            + f" in splits without masks and will be left out: {some([b.name for b in bare])}"
        ]
        images = [image for image in images if image not in set(bare)]
    table = Table(root, [])
    for apart in _apart(images, masks, roots):
        some_images, some_masks = (
            [path for path in paths if apart is None or split_in(path, root) == apart]
            for paths, root in zip((images, masks), roots, strict=True)
        )
        table.samples += [
            dataclasses.replace(sample, split=split_in(sample.image, roots[0]))
            for sample in samples_of(some_images, some_masks, roots, reading.mask_suffix)
        ]
    table.doubts += doubts
    return with_names(table)


def with_names(table: Table) -> Table:
    """Returns a table with the names of two classes, if its masks are files of single objects."""
    if any(isinstance(sample.mask, Drawn) for sample in table.samples):
        table.class_names = NAMES
    return table


def _apart(images: list[Path], masks: list[Path], roots: tuple[Path, Path]) -> list[str | None]:
    """Returns the splits that are paired separately (21_training.tif, 01_test.tif); None for all together."""
    splits = [{split_in(path, root) for path in paths} for paths, root in zip((images, masks), roots, strict=True)]
    return list(sorted(splits[0])) if splits[0] == splits[1] and "" not in splits[0] else [None]


def _drop_previews(paths: list[Path]) -> list[Path]:
    """Leaves out the coloured and instance versions that Cityscapes has beside its masks of ids."""
    ids = [path for path in paths if path.stem.endswith("_labelIds")]
    return ids if ids and len(ids) < len(paths) else paths


def side_by_side(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of images and masks in one folder: `07.png` and `07_mask.png`, or `07_mask_1.png` too."""
    files = [(path, path.stem) for path in Listing().images(root)]
    ends = [reading.mask_suffix] if reading.mask_suffix else [*ENDS, *map(str.title, ENDS), *map(str.upper, ENDS)]
    for end in ends:
        name = re.compile(re.escape(end) + r"([-_ ]?\d+)?$")  # with a number, the masks are of single objects
        masks = [path for path, stem in files if end in stem and name.search(stem)]
        if not masks:
            continue
        of_masks = set(masks)
        images = [path for path, _ in files if path not in of_masks]
        if images and 2 * len(masks) > len(images):  # `pair` names those that are missing
            listing.images(root)
            return with_names(Table(root, samples_of(images, masks, (root, root), end)))
    return None


def inner(folder: Path, names: tuple[str, ...]) -> Path:
    """Returns the folder within a folder that has one of the names, if there is one, or else the folder."""
    return next((each for each in folders_in(folder) if each.name.lower() in names), folder)


def split_in(path: Path, root: Path) -> str:
    """Returns the split that a folder between a root and a file means, or ""."""
    return next((found for part in path.relative_to(root).parts[:-1] if (found := split_of(part))), "")
