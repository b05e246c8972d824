"""The image files below a folder, and a count of the files that are left out."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dropzoo.common.claims import without_claimed
from dropzoo.training.data.images import IMAGE_SUFFIXES

#: Names of folders of masks.
MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annot", "segmentationclass", "gt", "gts"),
    *("segmentations", "segmentation", "groundtruth", "ground_truth", "targets", "target", "gtfine", "manual"),
)
#: What the name of a folder of masks has behind the name of its folder of images: trainannot, train_masks.
BEHIND = ("annot", "mask", "label", "seg", "gt", "groundtruth")
# Files and folders that systems leave behind; nobody misses them.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx", "ehthumbs.db"}


class Listing:
    """Lists image files, and counts the other files that it meets.

    Attributes:
        left_out: The number of files that are no images, by their endings.
        litter: The number of hidden files and of those that systems leave behind.
        made: The number of images that commands of dropzoo wrote.
        is_listed: Function that says whether a list of the splits names an image, or there is no such list. Other
            images may lack a mask.
    """

    def __init__(self) -> None:
        self.is_listed: Callable[[Path], bool] = lambda image: True
        self.left_out: Counter[str] = Counter()
        self.litter = self.made = 0

    def images(self, folder: Path, deep: bool = True) -> list[Path]:
        """Returns the image files in a folder, and with `deep` below it, in the order of their paths.

        Predictions that `dropzoo predict` and `measure` wrote beside the images are left out.
        """
        found = self._images(folder, deep)
        kept = without_claimed(found)
        self.made += len(found) - len(kept)
        return kept

    def _images(self, folder: Path, deep: bool) -> list[Path]:
        found: list[Path] = []
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if is_litter(entry.name):
                    self.litter += 1
                elif entry.is_dir():
                    found += self._images(Path(entry.path), deep) if deep else []
                elif (suffix := os.path.splitext(entry.name)[1].lower()) in IMAGE_SUFFIXES:
                    found.append(Path(entry.path))
                else:
                    self.left_out[suffix or entry.name] += 1
        return found


def folders_in(folder: Path) -> list[Path]:
    """Returns the folders in a folder that are not hidden, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name))


def is_litter(name: str) -> bool:
    """Returns whether a file or folder is hidden, or one that systems leave behind."""
    return name.startswith(".") or name.lower() in _LITTER


def has_images(folder: Path) -> bool:
    """Returns whether an image file is somewhere below a folder."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_litter(name)]
        if any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_litter(name) for name in files):
            return True
    return False


def is_mask_folder(name: str) -> bool:
    """Returns whether a folder bears a name of masks, alone or with that of a split: trainannot."""
    parts = [name.lower()] + [
        name.lower().removeprefix(part) for part in ("train", "training", "val", "valid", "test")
    ]
    known = {each.rstrip("s") for each in (*BEHIND, *MASKS)}
    return any(part.strip("_- ").rstrip("s") in known for part in parts)
