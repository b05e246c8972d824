"""The image files below a folder, and a count of the files that are left out."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dropzoo.common.claims import without_claimed
from dropzoo.training.data.images import IMAGE_SUFFIXES

#: Names of folders of masks.
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annot", "segmentationclass", "gt", "gts"),
    *("segmentations", "segmentation", "groundtruth", "ground_truth", "targets", "target", "gtfine", "manual"),
)
#: The ends of names of folders of masks, after the name of the folder of images: trainannot, train_masks.
BEHIND = ("annot", "mask", "label", "seg", "gt", "groundtruth")
# Files and folders that systems leave behind; nobody misses them.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db"}


class Listing:
    """Lists image files, and counts the other files that it meets.

    Attributes:
        left_out: The number of files that are not images, by their endings.
        litter: The number of hidden files and of those that systems leave behind.
        made: The number of images that commands of dropzoo wrote.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self.litter = self.made = 0

    def images(self, *folders: Path) -> list[Path]:
        """Returns the image files in folders and below them, folder by folder in the order of their paths.

        A link to a folder above it is not followed: such links run in circles. Files that `dropzoo predict` and
        `measure` wrote beside the images are left out.
        """
        found = [path for folder in folders for path in self._images(folder, ())]
        refuse_undecoded(found)
        kept = without_claimed(found)
        self.made += len(found) - len(kept)
        return kept

    def _images(self, folder: Path, above: tuple[str, ...]) -> list[Path]:
        found: list[Path] = []
        above = (*above, os.path.realpath(folder))
        for entry in _entries(folder):
            if is_litter(entry.name):
                self.litter += 1
            elif entry.is_dir():
                if not entry.is_symlink() or not _is_above(os.path.realpath(entry.path), above):
                    found += self._images(Path(entry.path), above)
            elif (suffix := os.path.splitext(entry.name)[1].lower()) in IMAGE_SUFFIXES:
                found.append(Path(entry.path))
            else:
                self.left_out[suffix or entry.name] += 1
        return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda each: each.name)
    except PermissionError:
        raise ValueError(
            f"Cannot read the folder {folder}, because its permissions do not allow it. Change them, or pass only "
            "folders that can be read"
        ) from None


def refuse_undecoded(paths: Iterable[Path]) -> None:
    """Raises a ValueError for a path that is not in UTF-8, since no table, journal or tensor can hold it."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"The names of files and folders must be in UTF-8. Received: {os.fsencode(path)!r}. Rename them; "
                "the program convmv renames all files in a folder"
            ) from None


def _is_above(folder: str, others: tuple[str, ...]) -> bool:
    return any(each == folder or each.startswith(folder.rstrip(os.sep) + os.sep) for each in others)


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder that are not hidden, in the order of their names."""
    return [Path(each.path) for each in _entries(folder) if each.is_dir() and not is_litter(each.name)]


def descend(folder: Path) -> Path:
    """Returns the first folder from this one down that holds several folders of images: archives nest folders."""
    while True:
        inner = [each for each in folders_in(folder) if has_images(each)]
        if len(inner) != 1 or not any(has_images(each) for each in folders_in(inner[0])):
            # The last of such folders may hold only images, and have the name of the one above.
            return inner[0] if len(inner) == 1 and inner[0].name == folder.name else folder
        folder = inner[0]


def is_litter(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in _LITTER


def has_images(folder: Path) -> bool:
    """Returns whether an image file is somewhere below a folder; links to folders are followed."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if not is_litter(name)]
        if any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_litter(name) for name in files):
            return True
    return False


def is_mask_folder(name: str) -> bool:
    """Returns whether a folder has a name for masks, alone or with that of a split: trainannot."""
    parts = [name.lower()] + [
        name.lower().removeprefix(part) for part in ("train", "training", "val", "valid", "test")
    ]
    known = {each.rstrip("s") for each in (*BEHIND, *MASKS)}
    return any(part.strip("_- ").rstrip("s") in known for part in parts)
