"""Pairs of images and masks, by their names."""

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from dropzoo.training.data.files.names import normal
from dropzoo.training.data.files.table import some


def pair(
    images: Sequence[Path], masks: Sequence[Path], roots: tuple[Path, Path], mask_suffix: str | None = None
) -> list[tuple[Path, Path]]:
    """Returns each image with its mask.

    A mask has the name of its image, apart from the file extension. All masks, and all images, may also have
    something before that name or after it: `07_mask.gif` belongs to `07.jpg`, and `mask-07.png` to `image-07.png`.

    Args:
        images: The files of the images.
        masks: The files of the masks.
        roots: The folders of the images and of the masks; files in folders below are paired folder by folder.
        mask_suffix: The text that the name of a mask adds to the name of its image. If None, it is found in the
            names of the files.

    Raises:
        ValueError: With the names of the files that do not pair.
    """
    best: dict[str, Path] = {}
    ways = _ways(images, masks, roots, mask_suffix)
    keys = ways[0]
    for image_key, mask_key in ways:
        by_key = {mask_key(mask): mask for mask in masks}
        found = {key: by_key[key] for key in map(image_key, images) if key in by_key}
        if len(found) > len(best):
            best, keys = found, (image_key, mask_key)
        if len(found) == len(images) == len(masks):
            break
    for paths, key in zip((images, masks), keys, strict=True):
        twice = [name for name, count in Counter(map(key, paths)).items() if count > 1]
        if twice:
            raise ValueError(
                f"File names must differ in more than their extensions. Received in {paths[0].parent}: "
                f"{some(sorted(twice))}"
            )
    alone = sorted(image.name for image in images if keys[0](image) not in best)
    spare = sorted(mask.name for mask in masks if keys[1](mask) not in best)
    if alone or spare:
        parts = [f"images without a mask: {some(alone)}"] * bool(alone)
        parts += [f"masks without an image: {some(spare)}"] * bool(spare)
        raise ValueError(
            "Each image needs a mask with the same name; only the file extension may differ. Received "
            f"{'; '.join(parts)}. "
            'If the names of masks have an additional ending, such as "_seg", pass it as `mask_suffix` '
            "(--mask-suffix). Or list the pairs in a CSV with the columns file and mask, and pass it as "
            "`split_file` (--split-file)"
        )
    return [(image, best[keys[0](image)]) for image in images]


def _ways(
    images: Sequence[Path], masks: Sequence[Path], roots: tuple[Path, Path], mask_suffix: str | None
) -> list[tuple[Callable[[Path], str], Callable[[Path], str]]]:
    """Returns pairs of functions that give the key of an image and of a mask, the plainest first."""

    def key(root: Path, start: str, end: str, shared: frozenset[int] = frozenset()) -> Callable[[Path], str]:
        def name(path: Path) -> str:
            stem = path.stem.removeprefix(start)
            stem = stem.removesuffix(end) if end else stem
            return normal("/".join([*_folders(path, root, shared), stem]))

        return name

    # Folders that all images, or all masks, share at the same place do not distinguish files: train/images/07.png.
    common = (_shared(images, roots[0]), _shared(masks, roots[1]))
    folders = [(frozenset[int](), frozenset[int]())] + [common] * any(common)
    if mask_suffix is not None:
        return [(key(roots[0], "", "", own), key(roots[1], "", mask_suffix, its)) for own, its in folders]
    ends = [_common_end(paths) for paths in (images, masks)]
    starts = [shared_start(paths) for paths in (images, masks)]
    over = _rest(images, masks)
    tails = list(dict.fromkeys([("", ""), ("", over), ("", ends[1]), (ends[0], ends[1])]))
    heads = list(dict.fromkeys([("", ""), ("", starts[1]), (starts[0], starts[1])]))
    return [
        (key(roots[0], head[0], tail[0], own), key(roots[1], head[1], tail[1], its))
        for (own, its), head, tail in product(folders, heads, tails)
    ]


def _folders(path: Path, root: Path, shared: frozenset[int]) -> list[str]:
    """Returns the folders between a root and a file, without those at the places `shared`."""
    folder = os.path.relpath(path.parent, root)
    parts = [] if folder == "." else folder.split(os.sep)
    return [part for place, part in enumerate(parts) if place not in shared]


def _shared(paths: Sequence[Path], root: Path) -> frozenset[int]:
    """Returns the places at which all paths have the same folder, if all are equally deep."""
    parts = {tuple(_folders(path, root, frozenset())) for path in paths}
    if len({len(each) for each in parts}) != 1:
        return frozenset()
    return frozenset(place for place, names in enumerate(zip(*parts, strict=True)) if len(set(names)) == 1)


def _rest(images: Sequence[Path], masks: Sequence[Path]) -> str:
    """Returns the text that most masks have after the name of an image."""
    stems = {image.stem for image in images}
    rests: Counter[str] = Counter()
    for mask in masks:
        cut = next((n for n in range(len(mask.stem), 0, -1) if mask.stem[:n] in stems), None)
        if cut is not None:
            rests[mask.stem[cut:]] += 1
    return rests.most_common(1)[0][0] if rests else ""


def _common_end(paths: Sequence[Path]) -> str:
    """Returns the end that all names share, from a character such as "_" on."""
    shared = os.path.commonprefix([path.stem[::-1] for path in paths])[::-1]
    found = re.search(r"[^0-9A-Za-z].*$", shared)
    return found[0] if found and len(paths) > 1 else ""


def shared_start(paths: Sequence[Path]) -> str:
    """Returns the start that all names share, up to a character such as "_" or a digit."""
    shared = os.path.commonprefix([path.stem for path in paths])
    found = re.match(r"[A-Za-z]+[^0-9A-Za-z]*", shared)
    return found[0] if found and len(paths) > 1 else ""
