"""The layouts of data sets on disk, each read into a table."""

import dataclasses
import glob
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dropzoo.common.claims import without_claimed
from dropzoo.common.words import count_of
from dropzoo.training.data.files import rows
from dropzoo.training.data.files.class_folders import class_folders, read_classes
from dropzoo.training.data.files.coco import find_coco, read_coco
from dropzoo.training.data.files.listing import BEHIND, MASKS, Listing, descend, folders_in, has_images, is_litter
from dropzoo.training.data.files.lists import with_split_lists
from dropzoo.training.data.files.merge import merge_splits
from dropzoo.training.data.files.objects import IMAGES, object_folders
from dropzoo.training.data.files.pair_folders import (
    images_and_masks,
    inner,
    paired,
    read_pairs,
    side_by_side,
)
from dropzoo.training.data.files.roles import choose_masks, holds_masks, split_in_name
from dropzoo.training.data.files.table import Reading, Table, counted, split_of
from dropzoo.training.data.files.tables import has_runs, listed_in_csv
from dropzoo.training.data.images import IMAGE_SUFFIXES

_MOST_COUNTED = 10_000
_WAYS = (
    "For another layout, pass the folders or patterns of the files as `images` and `masks` (--images, --masks); "
    "or pass a CSV as `split_file` (--split-file), with a row for each image, and with the columns file, label or "
    "mask, and split"
)


def read_layout(root: Path, reading: Reading) -> Table:
    """Returns the table of a folder in any of the layouts.

    Raises:
        ValueError: If there is no such folder, or its layout is not known.
    """
    if root.is_file():
        raise ValueError(
            f"Expected a folder. Received the file {root}. If it is an image, pass the folder of the images; if "
            "it is a table of images, pass it as `split_file` (--split-file), with the folder; if it is an "
            "archive, unpack it; if it holds arrays, pass these to `Trainer`"
        )
    if not root.is_dir():
        raise ValueError(
            f"No such folder: {root}. Expected a folder with images/ and masks/, or with one folder for each class"
        )
    listing = Listing()
    table = _named(root, reading, listing) or _found(root, reading, listing) or _below(root, reading, listing)
    if table is None:
        raise ValueError(
            f"Expected images/ and masks/, or at least two class folders, in {root}.{_others(root)} {_WAYS}"
        )
    if not table.samples:
        raise ValueError(f"No images in {root}. Expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    if listing.left_out:
        table.doubts.append(f"Left out files without the ending of an image file: {counted(listing.left_out)}")
    if listing.made:
        table.notes.append(f"Files that dropzoo wrote beside the images were skipped: {listing.made:,}")
    if listing.litter:
        table.notes.append(f"Hidden files and system files were skipped: {listing.litter:,}")
    return with_split_lists(table)


def _below(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of the only folder with images, if the root itself holds none, as in many archives."""
    folders = [each for each in folders_in(root) if has_images(each)]
    if len(folders) != 1 or any(path.suffix.lower() in IMAGE_SUFFIXES for path in root.iterdir()):
        return None
    table = _found(folders[0], reading, listing) or _below(folders[0], reading, listing)
    if table is None:
        return None
    table.notes.append(f"All images are in {folders[0]}")
    return table if table.root.is_file() else dataclasses.replace(table, root=root)


def _others(root: Path) -> str:
    """Returns a sentence about the files that are not images, such as those of annotations of other kinds."""
    files = (path for path in root.rglob("*") if path.is_file() and not is_litter(path.name))
    kinds = Counter(path.suffix.lower() or path.name for path in itertools.islice(files, _MOST_COUNTED))
    kinds = Counter({kind: count for kind, count in kinds.items() if kind not in IMAGE_SUFFIXES})
    return f" Other files in it: {counted(kinds)}." if kinds else ""


def _named(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table that `split_file`, `images` and `masks` name, or None without them."""
    if reading.split_file is not None:
        path = rows.find_file(root, reading.split_file)
        listed = rows.read_rows(path, root, reading)
        if any(sample.mask is not None or sample.label >= 0 for sample in listed.samples):
            return listed
        # The file gives only splits and groups; the folders give the labels.
        rest = dataclasses.replace(reading, split_file=None)
        table = _named(root, rest, listing) or _found(root, rest, listing)
        return None if table is None else rows.joined(table, listed, path)
    if reading.masks is None and reading.images is None:
        return None
    images_root, images = _glob(root, reading.images or ".", listing)
    if reading.masks is None:
        table = _found(images_root, dataclasses.replace(reading, images=None), listing)
        if table is None:
            raise ValueError(
                f"`images` (--images) needs `masks` (--masks) or class folders. Received: {reading.images}"
            )
        return table
    masks_root, masks = _glob(root, reading.masks, listing)
    chosen = set(masks)
    images = [image for image in images if image not in chosen]
    for name, paths in (("images", images), ("masks", masks)):
        if not paths:
            raise ValueError(f"No image files. Received: {name}={getattr(reading, name)!r} (--{name}) in {root}")
    return paired(root, (images_root, masks_root), (images, masks), reading)


def _glob(root: Path, text: str, listing: Listing) -> tuple[Path, list[Path]]:
    """Returns the folder that a text names, or the one in which its pattern begins, and the image files."""
    path = Path(text).expanduser()
    path = path.relative_to(root) if path.is_relative_to(root) else path
    base, path = root / path.anchor, path.relative_to(path.anchor)
    if (base / path).is_dir():
        return base / path, listing.images(base / path)
    if not glob.has_magic(str(path)):
        raise ValueError(
            f"No such folder: {base / path}. Expected a folder within {root}, or a pattern such as '*_mask.png'"
        )
    # Only the text is a pattern: the name of the root may have brackets too.
    found = [base / name for name in sorted(glob.glob(str(path), root_dir=base, recursive=True))]
    kept = without_claimed(each for each in found if each.is_file() and each.suffix.lower() in IMAGE_SUFFIXES)
    return base.joinpath(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)), kept


def _found(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of the first layout that a folder has, or None."""
    layouts: tuple[Callable[[Path, Reading, Listing], Table | None], ...] = (
        _given_splits,
        images_and_masks,
        object_folders,
        _coco,
        listed_in_csv,
        class_folders,
        side_by_side,
    )
    return next((table for layout in layouts if (table := layout(root, reading, listing)) is not None), None)


def _given_splits(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of `train/`, `val/` and `test/`, which hold pairs, class folders, or files of a list."""
    folders, masks = _split_folders(root)
    if not folders:
        return None
    tables: dict[str, Table] = {}
    for split, folder in folders.items():
        chosen = choose_masks([each for each in masks if _masks_of(each.name, folder.name, split)])
        if chosen is not None:
            tables[split] = read_pairs(inner(folder, IMAGES), inner(chosen, MASKS), reading, listing)
        elif (found := _split_table(descend(folder), root, reading, listing)) is not None:
            tables[split] = found
    labels = all(table.task == "classification" for table in tables.values())
    if not tables or (labels and has_runs(root)):  # masks in a table count more than folders that may be classes
        return _listed_splits(root, folders, reading, listing)
    if len({table.task for table in tables.values()}) > 1:  # folders of images to predict, beside those with masks
        tables = {split: table for split, table in tables.items() if table.task == "segmentation"}
    table = merge_splits(root, tables)
    if len(folders) == 1 and not any(split_of(folder.name) for folder in folders.values()):
        # A single folder with a name such as Training_Input is not a split beside another.
        table.samples = [dataclasses.replace(sample, split="") for sample in table.samples]
    known = {folders[split] for split in tables}
    _say_unused(table, {each for each in folders_in(root) if each not in known and each not in masks}, listing)
    return table


def _split_folders(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """Returns the folders of splits, and those of masks; none if another folder holds images, as a class may."""
    folders = folders_in(root)
    exact = {split_of(each.name): each for each in folders if split_of(each.name)}
    others = [each for each in folders if each not in exact.values() and has_images(each)]
    masks = [each for each in others if holds_masks(each)]
    images = [each for each in others if each not in masks]
    if not exact and not images:  # names such as seg_train, without images beside them
        images, masks = masks, []
    named = exact | {split: each for each in images if (split := split_in_name(each.name)) and split not in exact}
    spare = [each for each in images if each not in named.values()]
    if "train" in named and len(named) > 1 and all(_is_flat(each) for each in spare):
        spare = [] if len(folders_in(descend(named["train"]))) > 1 else spare  # images to predict, beside classes
    if spare or (not exact and "train" not in named):
        return {}, []
    return named, masks


def _is_flat(folder: Path) -> bool:
    """Returns whether a folder holds images and no folders of images."""
    return not any(has_images(each) for each in folders_in(descend(folder)))


def _say_unused(table: Table, folders: set[Path], listing: Listing) -> None:
    for folder in sorted(folders):
        if has_images(folder):
            count = len(listing.images(folder))
            table.doubts.append(
                f"{folder} holds {count_of(count, 'image')} without masks or labels, and is not used"
            )


def _listed_splits(root: Path, folders: dict[str, Path], reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of CSV files beside the folders of splits, such as train.csv for train/."""
    table = listed_in_csv(root, reading, listing)
    if table is None:
        return None
    used = {split: 0 for split in folders}
    splits = []
    for sample in table.samples:
        split = next((name for name, folder in folders.items() if sample.image.is_relative_to(folder)), "")
        used[split] = used.get(split, 0) + 1
        splits.append(split)
    _say_unused(table, {folder for split, folder in folders.items() if not used[split]}, listing)
    if sum(map(bool, used.values())) > 1 and not any(sample.split for sample in table.samples):
        pairs = zip(table.samples, splits, strict=True)
        table.samples = [dataclasses.replace(sample, split=split) for sample, split in pairs]
    return table


def _split_table(folder: Path, root: Path, reading: Reading, listing: Listing) -> Table | None:
    for layout in (images_and_masks, object_folders, _coco, listed_in_csv, class_folders, side_by_side):
        if (table := layout(folder, reading, listing)) is not None:
            return table
    names = folders_in(folder)
    is_class = len(names) == 1 and names[0].name.lower() not in IMAGES
    if is_class and has_images(names[0]):  # a split with a single class
        return read_classes(folder, names, listing)
    return None


def _masks_of(name: str, images: str, split: str) -> bool:
    """Returns whether a folder's name is that of the masks of a folder of images: trainannot, train_masks."""
    if split_in_name(name) == split:
        return True
    rest = name.lower().removeprefix(images.lower()).strip("_- ").rstrip("s")
    before = name.lower().removesuffix(images.lower()).strip("_- ").rstrip("s")
    known = {each.rstrip("s") for each in (*BEHIND, *MASKS)}
    return name.lower() != images.lower() and (rest in known or before in known)


def _coco(root: Path, reading: Reading, listing: Listing) -> Table | None:
    files = find_coco(root)
    return read_coco(files, root) if files else None
