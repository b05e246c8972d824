"""The role of a folder, by the words in its name and by its files: images, masks, or a split of both."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dropzoo.training.data.files.listing import MASKS, Listing, has_images, is_mask_folder
from dropzoo.training.data.files.objects import pair_or_join
from dropzoo.training.data.files.table import some, split_of
from dropzoo.training.data.images import read_mask

_MASK_WORDS = {*MASKS, "seg", "segs", "semantic", "truth", "trimap", "trimaps", "manuals"}
# Other versions of the same masks, which many sets have beside them.
_VERSIONS = {
    *("instance", "instances", "object", "objects", "coarse", "color", "colors", "colour", "colours", "colored"),
    *("coloured", "colormap", "rgb", "vis", "visual", "overlay", "overlays", "preview", "previews"),
}
_PART_WORDS = {"part", "batch", "chunk", "images", "image", "imgs", "photos", "frames"}
_FEW, _MANY = 16, 64  # the most colours of a mask, and the fewest of a photograph
_MOST_FOLDERS = 12


def words(name: str) -> list[str]:
    """Returns the words of a name in lower case: `GroundTruth_v2` has `ground`, `truth` and `v`."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def split_in_name(name: str) -> str:
    """Returns the only split that a name or one of its words means, as in `stage1_train`, or ""."""
    found = {split for word in [name, *words(name)] if (split := split_of(word))}
    return found.pop() if len(found) == 1 else ""


def holds_masks(folder: Path) -> bool:
    """Returns whether the name of a folder says that it holds masks."""
    return is_mask_folder(folder.name) or bool(_MASK_WORDS & set(words(folder.name)))


def choose_masks(folders: Sequence[Path]) -> Path | None:
    """Returns the one folder of masks among folders that hold images, or None if there is none.

    Raises:
        ValueError: If several folders may be meant.
    """
    found = [folder for folder in folders if holds_masks(folder) and has_images(folder)]
    plain = [folder for folder in found if not _VERSIONS & set(words(folder.name))] or found
    if len(plain) > 1:
        raise ValueError(
            f"Several folders may hold the masks: {some([str(folder) for folder in plain])}. Pass patterns "
            f"for the right one and for the images, as in masks='**/{plain[0].name}/*' (--masks) and "
            "images='**/images/*' (--images)"
        )
    return plain[0] if plain else None


def refuse_no_classes(root: Path, folders: Sequence[Path]) -> None:
    """Raises a ValueError if folders are certainly not classes, although they hold images."""
    if len(folders) < 2:
        return
    names = some([folder.name for folder in folders])
    splits = {split_in_name(folder.name) for folder in folders}
    if "train" in splits and "" not in splits and len(splits) > 1:
        raise ValueError(
            f"These folders look like splits, but hold neither masks nor class folders: {names} in {root}. List "
            "each image with its label or its mask in a CSV with the columns file and label, or file and mask, "
            "and pass it as `split_file` (--split-file)"
        )
    shared = set.intersection(*(set(words(folder.name)) for folder in folders)) & _PART_WORDS
    if shared and len({re.sub(r"\d+", "", folder.name) for folder in folders}) == 1:
        raise ValueError(
            f"These folders look like parts of one data set, not like classes: {names} in {root}. List each image "
            "with its label in a CSV with the columns file and label, and pass it as `split_file` (--split-file)"
        )
    if len(folders) <= _MOST_FOLDERS and (found := _images_with_masks(folders)):
        image, mask = found
        raise ValueError(
            f"{mask} looks like the masks of {image}, and not like a class. Pass both: images='**/{image.name}/*' "
            f"(--images) and masks='**/{mask.name}/*' (--masks). If they are classes, list each image with "
            "its label in a CSV with the columns file and label, and pass it as `split_file` (--split-file)"
        )


def _images_with_masks(folders: Sequence[Path]) -> tuple[Path, Path] | None:
    """Returns a folder of photographs and one of files of their names in few colours, or None."""
    colours = {folder: _colours(folder) for folder in folders}
    files = {folder: Listing().images(folder) for folder in folders}
    for mask in folders:
        for image in folders:
            if not colours[mask] or not colours[image] or colours[image][0] < _MANY:
                continue
            if not 1 < colours[mask][-1] <= _FEW:
                continue
            try:
                pair_or_join(files[image], files[mask], (image, mask), None)
            except ValueError:
                if not holds_masks(mask):
                    continue
            return image, mask
    return None


def _colours(folder: Path) -> list[int]:
    """Returns the numbers of colours in the first files of a folder, in order."""
    found = []
    for path in Listing().images(folder)[:3]:
        try:
            pixels = read_mask(path)
        except ValueError:
            continue
        found.append(len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)))
    return sorted(found)
