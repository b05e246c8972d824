"""Small folders of images and masks, which several files of tests read."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (6, 8)
RANDOM = np.random.default_rng(0)


def picture(path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def ids(classes: int = 2) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[1:3, 1:4] = 1
    mask[4:, 5:] = classes - 1
    return mask


def mask(path: Path, values: np.ndarray | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids() if values is None else values).save(path, **options)


def pairs(root: Path, count: int, image: str, annotation: str, **options) -> None:
    for number in range(count):
        picture(root / image.format(number))
        mask(root / annotation.format(number), **options)


def counts(source) -> tuple[int, int, int]:
    return tuple(part.count if part else 0 for part in (source.train, source.validation, source.test))


def train_and_test(root):
    for split, count in (("train", 10), ("test", 3)):
        for name in ("cat", "dog"):
            for n in range(count):
                picture(root / split / name / f"{n}.jpg")
