"""The image files that a user names: files, folders and patterns, and the names of what is written for each."""

import functools
import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dropzoo.common.claims import without_claimed
from dropzoo.common.files import RealPaths
from dropzoo.common.words import count_of
from dropzoo.training.data.files.listing import (
    Listing,
    folders_in,
    has_images,
    is_mask_folder,
    refuse_undecoded,
)
from dropzoo.training.data.files.pair_folders import IMAGES
from dropzoo.training.data.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class Found:
    """An image file.

    Attributes:
        path: Path of the file.
        name: Path without a suffix, relative to the folder in which the file was found: the name of its outputs.
    """

    path: Path
    name: Path


def find_images(
    paths: Sequence[Path | str], avoid: Path | None = None, left_out: Counter[str] | None = None
) -> list[Found]:
    """Returns the image files that paths name, in the order of the paths and by name within a folder.

    A folder is searched with all folders in it, also those that it links to. In a data set, a folder with `images`
    and `masks`, the masks are left out. So are unfinished files, and the files that the commands wrote, which
    their journals in the folders above list. A path with `*`, `?` or `[` is a pattern if it is not a file; `**`
    stands for any folders.

    Args:
        paths: Files, folders and patterns.
        avoid: Path of a folder of outputs, which is not searched, unless a path is this folder or lies in it; None
            if there is none.
        left_out: Counter that gets the number of other files in the folders, by their endings.

    Raises:
        ValueError: If there are no paths, a path is empty or does not exist, a pattern matches nothing, a folder
            holds no images, or a name is not in UTF-8.
    """
    found: dict[Path, Found] = {}
    real_path = RealPaths()
    if not paths or not all(map(str, paths)):
        raise ValueError(f"Expected files, folders or patterns. Received: {list(map(str, paths))}")
    for path in (Path(each).expanduser() for each in paths):
        avoided = None if avoid is None or _lies_in(path, avoid) else avoid.resolve()
        for each in _in_path(path, search := _Search(avoided, real_path)):
            found.setdefault(real_path(each.path), each)
        if left_out is not None:
            left_out.update(search.left_out)
    refuse_undecoded(each.path for each in found.values())
    return list(found.values())


class _Search:
    """A search: the folder that it avoids, or none, and a count of the files that are not images."""

    def __init__(self, avoided: Path | None, real_path: RealPaths) -> None:
        self._avoided, self._real_path = avoided, real_path
        self.left_out: Counter[str] = Counter()

    def avoids(self, path: Path) -> bool:
        return self._avoided is not None and self._real_path(path).is_relative_to(self._avoided)


def _in_path(path: Path, search: _Search) -> list[Found]:
    if path.is_dir():
        return _in_folder(path, search)
    if path.exists():
        return [Found(path, Path(path.stem))]
    if glob.has_magic(str(path)):
        matches = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
        files = _images(matches, search)
        folders = [] if files else [each for each in matches if each.is_dir() and not search.avoids(each)]
        inside = [each for folder in folders for each in _in_folder(folder, search)]
        if not files and not inside:
            raise ValueError(f"The pattern matches no image: {path}. Images end in {_suffixes()}")
        return [Found(each, Path(each.stem)) for each in files] + inside
    raise ValueError(f"No such file or folder: {path}")


def _images(files: Iterable[Path], search: _Search) -> list[Path]:
    """The images among files: neither outputs of the commands nor files that were not finished."""
    images = [each for each in files if each.suffix.lower() in IMAGE_SUFFIXES and _is_wanted(each, search)]
    return without_claimed(images)


def _is_wanted(file: Path, search: _Search) -> bool:
    return not search.avoids(file) and not file.stem.endswith(".unfinished")


def _in_folder(folder: Path, search: _Search) -> list[Found]:
    listing = Listing()
    files = listing.images(folder)
    search.left_out.update(listing.left_out)
    is_of_masks = functools.cache(_is_folder_of_masks)
    images = [
        each
        for each in files
        if _is_wanted(each, search)
        and not any(
            is_of_masks(parent) for parent in each.parents if parent != folder and parent.is_relative_to(folder)
        )
    ]
    if not images:
        count = len(files) + listing.made + sum(listing.left_out.values())
        others = f" It holds {count_of(count, 'other file')}." if count else ""
        raise ValueError(f"The folder {folder} holds no images (files that end in {_suffixes()}).{others}")
    return [Found(each, each.relative_to(folder).with_suffix("")) for each in images]


def _is_folder_of_masks(folder: Path) -> bool:
    """Whether a folder of masks lies beside its images: `masks` beside `images`, `trainannot` beside `train`."""
    if not is_mask_folder(folder.name):
        return False
    for other in folders_in(folder.parent):
        rest = folder.name.lower().removeprefix(other.name.lower())
        is_images = other.name.lower() in IMAGES or (rest != folder.name.lower() and is_mask_folder(rest))
        if other != folder and is_images and has_images(other):
            return True
    return False


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path, or the part of a pattern before the first sign, is a folder or lies in it."""
    start = path
    while not start.exists() and glob.has_magic(str(start)):
        start = start.parent
    return start.resolve().is_relative_to(folder.resolve())


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


class Names:
    """Gives each page of each file a name of its own, for its outputs.

    Args:
        taken: The keys of the pages that have a name already, by the name.
    """

    def __init__(self, taken: Iterable[tuple[str, str]] = ()) -> None:
        self._keys = {name.casefold(): key for name, key in taken}  # a.png and A.PNG are one file on some systems

    def of(self, key: str, wanted: Path) -> tuple[Path, str]:
        """Returns a name, and "" or a suffix such as "_2" if another page has the same name.

        Args:
            key: Str that identifies the page.
            wanted: The name that the page would have alone.
        """
        number = 1
        while True:
            again = f"_{number}" if number > 1 else ""
            if self._keys.setdefault(f"{wanted}{again}".casefold(), key) == key:
                return wanted, again
            number += 1
