"""Layouts with a mask file for each object: the masks of an image are joined when it is read."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from dropzoo.training.data.files.listing import Listing, is_litter, is_mask_folder
from dropzoo.training.data.files.names import normal
from dropzoo.training.data.files.pairs import pair, shared_start
from dropzoo.training.data.files.table import Drawn, Reading, Sample, Table, some

#: The names of the classes, if each mask is an object of the only one.
NAMES = ("background", "object")
#: Names of folders of images.
IMAGES = ("images", "image", "imgs", "img", "jpegimages", "inputs", "input", "frames", "photos", "leftimg8bit")
_Roots = tuple[Path, Path]


def object_folders(root: Path, reading: Reading, listing: Listing) -> Table | None:
    """Returns the table of folders that each hold images and their masks: `ID/images/ID.png` and `ID/masks/*.png`.

    The masks of the only image in a folder belong to it, no matter what they are called; others are matched by
    name.
    """
    cases = _cases(root)
    if cases is None:
        return None
    files: dict[str, list[Path]] = {}
    for path in listing.images(*(case for case, _, _ in cases)):
        files.setdefault(path.relative_to(root).parts[0], []).append(path)
    found: list[tuple[Path, Sequence[Path]]] = []
    for case, images_folder, masks_folder in cases:
        masks = [path for path in files.get(case.name, ()) if masks_folder and _is_in(path, masks_folder)]
        of_masks = set(masks)
        images = [
            path for path in files.get(case.name, ()) if path not in of_masks and _is_in(path, images_folder)
        ]
        if not images and masks:
            raise ValueError(f"Masks without an image: {some([str(mask) for mask in masks])}. Remove them")
        if len(images) == 1 or not masks:
            found += [(image, masks) for image in images]
            continue
        roots = (images_folder, masks_folder or images_folder)
        found += pair_or_join(images, masks, roots, reading.mask_suffix)
    _refuse_kinds({image: [mask.stem.removeprefix(image.stem) for mask in masks] for image, masks in found}, root)
    table = Table(root, [Sample(image, mask=_mask(masks)) for image, masks in found], NAMES)
    if all(isinstance(sample.mask, Path) for sample in table.samples):
        table.class_names = ()  # ordinary masks, in folders of their own
    return table


def _cases(root: Path) -> list[tuple[Path, Path, Path | None]] | None:
    """Returns each folder, and the folders of images and of masks in it; None if not most have both."""
    folders = _folders(root)
    cases: list[tuple[Path, Path, Path | None]] = []
    for folder in folders:
        inner = _folders(folder)
        masks = next((each for each in inner if is_mask_folder(each.name)), None)
        images = next((each for each in inner if each.name.lower() in IMAGES), None)
        if images is None and masks is not None:
            images = folder  # beside their masks
        if images is None:
            return None
        cases.append((folder, images, masks))
    with_masks = sum(masks is not None for _, _, masks in cases)
    return cases if len(cases) > 1 and 2 * with_masks > len(cases) else None


def _is_in(path: Path, folder: Path) -> bool:
    return str(path).startswith(f"{folder}{os.sep}")


def _folders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, quickly also for one of many thousand images."""
    with os.scandir(folder) as entries:
        return sorted(Path(each.path) for each in entries if not is_litter(each.name) and each.is_dir())


def _mask(files: Sequence[Path]) -> Path | Drawn:
    """Returns the mask of a sample: its file, or the files of its objects."""
    return files[0] if len(files) == 1 else Drawn((0, 0), tuple((1, file) for file in files))


def pair_or_join(
    images: Sequence[Path], masks: Sequence[Path], roots: _Roots, mask_suffix: str | None
) -> list[tuple[Path, Sequence[Path]]]:
    """Returns each image with its mask, or with those of its objects; `pair` describes the arguments.

    Raises:
        ValueError: With the names of the files that do not pair.
    """
    try:
        return [(image, [mask]) for image, mask in pair(images, masks, roots, mask_suffix)]
    except ValueError:
        joined = join(images, masks, roots, mask_suffix or "")
        if joined is None:
            raise
        return list(joined.items())


def samples_of(
    images: Sequence[Path], masks: Sequence[Path], roots: _Roots, mask_suffix: str | None
) -> list[Sample]:
    """Returns the samples of images and masks."""
    return [Sample(image, mask=_mask(files)) for image, files in pair_or_join(images, masks, roots, mask_suffix)]


def join(
    images: Sequence[Path], masks: Sequence[Path], roots: _Roots, mask_suffix: str = ""
) -> dict[Path, list[Path]] | None:
    """Returns the masks of each image, if they are of single objects by their names, or else None.

    `IMAGE_1.png` and `IMAGE/1.png` belong to `IMAGE.png`. An image without masks holds no object.

    Args:
        images: The files of the images.
        masks: The files of the masks.
        roots: The folders of the images and of the masks.
        mask_suffix: The text between the name of the image and the rest of the name of a mask.

    Raises:
        ValueError: If masks belong to no image, or their names say that they are not of single objects.
    """
    plain, shared = ("", ""), (shared_start(images), shared_start(masks))
    best: dict[Path, tuple[Path, str]] = {}
    for starts in (plain, shared):
        owners = _owners(images, masks, roots, starts)
        best = owners if len(owners) > len(best) else best
    best = {mask: (image, rest) for mask, (image, rest) in best.items() if rest.startswith(mask_suffix)}
    found: dict[Path, list[Path]] = {image: [] for image in images}
    rests: dict[Path, list[str]] = {image: [] for image in images}
    for mask, (image, rest) in best.items():
        found[image].append(mask)
        rests[image].append(rest)
    several = any(len(each) > 1 for each in found.values())
    if not several or 2 * len(best) < len(masks) or any(len(set(each)) < len(each) for each in rests.values()):
        return None
    _refuse_kinds(rests, roots[1])
    if spare := sorted(str(mask) for mask in masks if mask not in best):
        raise ValueError(
            "The path of each object's mask must contain the name of its image, as in IMAGE_1.png or IMAGE/1.png. "
            f"Received masks without an image: {some(spare)}. Remove them, or list each image with its mask in a "
            "CSV with the columns file and mask, and pass the CSV as `split_file` (--split-file)"
        )
    return found


def _owners(
    images: Sequence[Path], masks: Sequence[Path], roots: _Roots, starts: tuple[str, str]
) -> dict[Path, tuple[Path, str]]:
    """Returns the image of each mask that has one, and what the mask's path says besides the image's name."""
    by_path: dict[str, Path] = {}
    by_name: dict[str, list[Path]] = {}
    for image in images:
        stem = image.stem.removeprefix(starts[0])
        by_path["/".join([*_parts(image, roots[0]), normal(stem)])] = image
        by_name.setdefault(normal(stem), []).append(image)
    known = by_path | {
        name: found[0] for name, found in by_name.items() if len(found) == 1 and name not in by_path
    }
    owners = {}
    for mask in masks:
        parts = [*_parts(mask, roots[1]), normal(mask.stem.removeprefix(starts[1]))]
        if (owner := _owner(parts, known)) is not None:
            owners[mask] = owner
    return owners


def _parts(path: Path, root: Path) -> list[str]:
    folder = os.path.relpath(path.parent, root)
    return [] if folder == "." else [normal(part) for part in folder.split(os.sep)]


def _owner(parts: list[str], known: dict[str, Path]) -> tuple[Path, str] | None:
    """Returns the image that a folder or the name of a mask names, and the rest of the mask's path."""
    for n in range(len(parts) - 1, 0, -1):  # a folder for each image
        for name in ("/".join(parts[:n]), parts[n - 1]):
            if name in known:
                return known[name], "/".join(parts[n:])
    folder, stem = "/".join([*parts[:-1], ""]), parts[-1]
    for n in range(len(stem), 0, -1):  # the longest name counts: cell_12_1 is of cell_12, and not of cell
        if n < len(stem) and stem[n].isalnum():
            continue
        for name in (folder + stem[:n], stem[:n]):
            if name in known:
                return known[name], stem[n:]
    return None


def _refuse_kinds(rests: dict[Path, list[str]], folder: Path) -> None:
    """Raises a ValueError if names such as IMAGE_road and IMAGE_car say that masks are not of single objects."""
    holders: dict[str, int] = {}
    for each in rests.values():
        for kind in {re.sub(r"[^a-z]+", "", rest.lower()) for rest in each}:
            holders[kind] = holders.get(kind, 0) + 1
    kinds = sorted(kind for kind, count in holders.items() if count > 1 and kind)
    if len(kinds) > 1:
        raise ValueError(
            f"Each image has several masks in {folder}, and a word in their names tells them apart: "
            f"{some(kinds)}. If the words are classes, draw the masks of an image into one PNG of class ids. If "
            "the words stand for people who drew the masks, pass a CSV with the columns file and mask, and a row "
            "for each mask, as `split_file` (--split-file). To train only on the masks with one of the words, "
            f"pass a pattern for these masks as `masks` (--masks), such as '**/*{kinds[0]}*', and a pattern for "
            "the images as `images` (--images)"
        )
