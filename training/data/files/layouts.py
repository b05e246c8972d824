"""The layouts of data sets on disk, each read into a table."""

import dataclasses
import glob
import os
from collections.abc import Callable
from pathlib import Path

from dropzoo.training.data.files import rows
from dropzoo.training.data.files.coco import find_coco, read_coco
from dropzoo.training.data.files.listing import BEHIND, MASKS, Listing, folders_in, has_images, is_mask_folder
from dropzoo.training.data.files.pairs import pair
from dropzoo.training.data.files.table import Polygons, Reading, Sample, Table, counted, some, split_of
from dropzoo.training.data.images import IMAGE_SUFFIXES

_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "inputs", "input", "frames", "photos", "leftimg8bit")
# What the name of a mask has behind that of its image, if both are in one folder.
_ENDS = ("_mask", "_seg", "_label", "_labels", "_gt", "_annotation")
_WAYS = (
    "Otherwise name the folders or patterns of files, `images` and `masks` (--images, --masks), or a CSV "
    "with a row "
    "for each image and the columns file, label or mask, and split, `split_file` (--split-file)"
)


def read_layout(root: Path, reading: Reading) -> Table:
    """Returns the table of a folder, whichever layout it has.

    Raises:
        ValueError: If there is no such folder, or its layout is not known.
    """
    if not root.is_dir():
        raise ValueError(
            f"No such folder: {root}. Expected a folder with images/ and masks/, or with one folder for each class"
        )
    listing = Listing()
    table = _named(root, reading, listing) or _found(root, reading, listing)
    if table is None:
        raise ValueError(f"Expected images/ and masks/, or at least two class folders, in {root}. {_WAYS}")
    if not table.samples:
        raise ValueError(f"No images in {root}. Expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    if listing.left_out:
        table.doubts.append(f"Left out files whose endings are not those of images: {counted(listing.left_out)}")
    if listing.litter:
        table.notes.append(f"Hidden files and those of the system were skipped: {listing.litter:,}")
    return rows.with_split_lists(table)


def _named(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table that `split_file`, `images` and `masks` name, or None without them."""
    if reading.split_file is not None:
        path = rows.find_file(root, reading.split_file)
        listed = rows.read_rows(path, root, reading)
        if any(sample.mask is not None or sample.label >= 0 for sample in listed.samples):
            return listed
        # The file gives splits and groups alone; the folders give the labels.
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
    samples = [
        Sample(image, mask=mask, split=_split_in(image, images_root))
        for image, mask in pair(images, masks, (images_root, masks_root), reading.mask_suffix)
    ]
    return _table(root, samples)


def _glob(root: Path, text: str, listing: Listing) -> tuple[Path, list[Path]]:
    """Returns the folder of a folder or pattern, and its image files."""
    path = Path(text).expanduser()
    path = path if path.is_absolute() else root / path
    if path.is_dir():
        return path, listing.images(path)
    if not any(sign in text for sign in "*?["):
        raise ValueError(
            f"No such folder: {path}. Expected a folder within {root}, or a pattern such as '*_mask.png'"
        )
    fixed = Path(str(path).split("*")[0].split("?")[0].split("[")[0])
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    kept = [each for each in found if each.is_file() and each.suffix.lower() in IMAGE_SUFFIXES]
    return fixed if str(path).startswith(str(fixed) + os.sep) else fixed.parent, kept


def _split_in(path: Path, root: Path) -> str:
    """Returns the split that a folder between a root and a file means, or ""."""
    return next((found for part in path.relative_to(root).parts[:-1] if (found := split_of(part))), "")


def _found(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of the first layout that a folder has, or None."""
    layouts: tuple[Callable[[Path, Reading, Listing], Table | None], ...] = (
        _given_splits,
        _images_and_masks,
        _coco,
        _listed_in_csv,
        _classes,
        _side_by_side,
    )
    return next((table for layout in layouts if (table := layout(root, reading, listing)) is not None), None)


def _given_splits(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of `train/`, `val/` and `test/`, which hold pairs, class folders, or files of a list."""
    folders = {split_of(each.name): each for each in folders_in(root) if split_of(each.name)}
    beside = {each.name for each in folders_in(root)} - {each.name for each in folders.values()}
    if not folders or any(has_images(root / name) and not is_mask_folder(name) for name in beside):
        return None  # a class may be called "test"
    tables: dict[str, Table] = {}
    for split, folder in folders.items():
        masks = next((root / name for name in sorted(beside) if _masks_of(name, folder.name)), None)
        if masks is not None:
            tables[split] = _pairs(_inner(folder, _IMAGES), _inner(masks, MASKS), reading, listing)
        elif (found := _split_table(folder, root, reading, listing)) is not None:
            tables[split] = found
    if not tables:
        return None
    table = _merged(root, tables)
    for split in folders.keys() - tables.keys():
        count = len(listing.images(folders[split]))
        table.doubts.append(f"{folders[split]} holds {count:,} images without masks or labels; they are not used")
    return table


def _split_table(folder: Path, root: Path, reading: Reading, listing: Listing) -> Table | None:
    for layout in (_images_and_masks, _coco, _listed_in_csv, _classes, _side_by_side):
        if (table := layout(folder, reading, listing)) is not None:
            return table
    names = folders_in(folder)
    if len(names) == 1 and has_images(names[0]):  # a split with a single class
        return _class_table(folder, names, listing)
    return None


def _masks_of(name: str, images: str) -> bool:
    """Returns whether a folder's name is that of the masks of a folder of images: trainannot, train_masks."""
    rest = name.lower().removeprefix(images.lower()).strip("_- ").rstrip("s")
    before = name.lower().removesuffix(images.lower()).strip("_- ").rstrip("s")
    known = {each.rstrip("s") for each in (*BEHIND, *MASKS)}
    return name.lower() != images.lower() and (rest in known or before in known)


def _inner(folder: Path, names: tuple[str, ...]) -> Path:
    """Returns the folder within a folder that bears one of the names, if there is one, or else the folder."""
    return next((each for each in folders_in(folder) if each.name.lower() in names), folder)


def _merged(root: Path, tables: dict[str, Table]) -> Table:
    """Returns one table of the tables of the splits; each class has one number in all of them."""
    names = _names_of_all(list(tables.values()))
    samples: list[Sample] = []
    merged = _table(root, samples, names)
    for split in sorted(tables, key=("train", "validation", "test").index):
        table = tables[split]
        for sample in table.samples:
            label = names.index(table.class_names[sample.label]) if sample.label >= 0 else -1
            samples.append(dataclasses.replace(sample, split=split, label=label))
        merged.notes += table.notes
        merged.doubts += table.doubts
    for split, table in tables.items():
        missing = [name for name in names if name not in table.class_names]
        if missing and table.class_names and split == "train":
            raise ValueError(
                f"Each class needs training images. Received: none of {some(missing)} in {table.root}"
            )
        if missing and table.class_names:
            merged.doubts.append(f"No image of {some(missing)} in {table.root}")
    return merged


def _names_of_all(tables: list[Table]) -> tuple[str, ...]:
    """Returns the names of the classes of all tables, in the order of the numbers that drawn masks hold."""
    given = {table.class_names for table in tables if table.class_names}
    if any(isinstance(sample.mask, Polygons) for table in tables for sample in table.samples):
        if len(given) > 1:
            shown = "; ".join(f"{some(each.class_names)} in {each.root}" for each in tables if each.class_names)
            raise ValueError(f"The files of the splits must have the same categories. Received: {shown}")
        return given.pop()
    return tuple(sorted({name for names in given for name in names}))


def _images_and_masks(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of `images/` and `masks/`, or of folders of such names; both may hold given splits."""
    folders = {each.name.lower(): each for each in folders_in(root)}
    images = next((folders[name] for name in _IMAGES if name in folders), None)
    masks = next((folders[name] for name in MASKS if name in folders), None)
    if images is None or masks is None or (not has_images(masks) and find_coco(root)):
        return None
    return _pairs(images, masks, reading, listing, root)


def _pairs(images: Path, masks: Path, reading: Reading, listing: Listing, root: Path | None = None) -> Table:
    files = []
    for folder in (images, masks):
        found = listing.images(folder)
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"No images in {folder}. Expected files ending in {endings}")
        files.append(found)
    files = [_drop_previews(each) for each in files]
    samples = [
        Sample(image, mask=mask, split=_split_in(image, images))
        for image, mask in pair(files[0], files[1], (images, masks), reading.mask_suffix)
    ]
    return _table(root or images.parent, samples)


def _drop_previews(paths: list[Path]) -> list[Path]:
    """Leaves out the coloured and instance versions that Cityscapes has beside its masks of ids."""
    ids = [path for path in paths if path.stem.endswith("_labelIds")]
    return ids if ids and len(ids) < len(paths) else paths


def _coco(root: Path, reading: Reading, listing: Listing) -> Table | None:
    files = find_coco(root)
    return read_coco(files, root) if files else None


def _listed_in_csv(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of the one CSV in a folder whose images are in no class folders."""
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv"))
    tables = [path for path in tables if rows.lists_images(path)]
    # Class folders beside a list of labels would win, but no class folders are beside a list of masks.
    folders = [each for each in folders_in(root) if has_images(each)]
    if len(tables) != 1 or (len(folders) > 1 and not rows.lists_masks(tables[0])):
        return None
    table = rows.read_rows(tables[0], root, reading)
    if not any(sample.label >= 0 or sample.mask is not None for sample in table.samples):
        return None
    table.notes.append(f"Labels are those of {tables[0]}")
    return table


def _classes(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of class folders."""
    folders = folders_in(root)
    if len(folders) < 2 or not any(has_images(each) for each in folders):
        return None
    return _class_table(root, folders, listing)


def _class_table(root: Path, folders: list[Path], listing: Listing) -> Table:
    samples = []
    for label, folder in enumerate(folders):
        found = listing.images(folder)
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ValueError(f"No images in {folder}. Expected files ending in {endings}")
        samples += [Sample(path, label) for path in found]
    table = _table(root, samples, tuple(folder.name for folder in folders))
    known = {(sample.image.parent, sample.image.stem) for sample in samples}
    masks = [
        sample.image
        for sample in samples
        if any(
            (sample.image.parent, sample.image.stem.removesuffix(end)) in known
            for end in _ENDS
            if sample.image.stem.endswith(end)
        )
    ]
    if masks:
        table.doubts.append(
            f"{len(masks):,} images bear the name of another and look like its mask, such as {masks[0]}: "
            f"they are read "
            "as images of a class. To train on masks, pass `masks` (--masks), such as '**/*_mask*'"
        )
    return table


def _side_by_side(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of images and masks in one folder: `07.png` and `07_mask.png`."""
    files = Listing().images(root)
    ends = [reading.mask_suffix] if reading.mask_suffix else list(_ENDS)
    for end in ends:
        masks = [path for path in files if path.stem.endswith(end)]
        images = [path for path in files if not path.stem.endswith(end)]
        if images and 2 * len(masks) > len(images):  # `pair` names those that are missing
            listing.images(root)
            pairs = pair(images, masks, (root, root), end)
            return _table(root, [Sample(image, mask=mask) for image, mask in pairs])
    return None


def _table(root: Path, samples: list[Sample], class_names: tuple[str, ...] = ()) -> Table:
    return Table(root, samples, class_names)
