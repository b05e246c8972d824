"""The embedded data sets: 1,797 real handwritten digits, and scenes composed of them. Neither needs a network."""

import math
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from scipy import ndimage
from sklearn.datasets import load_digits

CANVAS = 64  # height and width of a scene, in pixels
SCENES = {"train": 800, "test": 200}

_CITATION = """@misc{uci_digits,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49},
}"""


def digits_by_split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns scikit-learn's digits as `{"train": (images, labels), "test": (images, labels)}`.

    Images are `(count, 8, 8)` in [0, 1]. The last fifth of each digit is the test set. The file is ordered by
    writer, so most test digits come from writers that the training set does not have.
    """
    bunch = load_digits()
    images, labels = bunch.images / 16.0, bunch.target
    in_test = np.zeros(len(labels), bool)
    for digit in range(10):
        places = np.flatnonzero(labels == digit)
        in_test[places[len(places) - len(places) // 5 :]] = True
    return {
        "train": (images[~in_test], labels[~in_test]),
        "test": (images[in_test], labels[in_test]),
    }


def draw_scene(digits: np.ndarray, labels: np.ndarray, seed: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws one scene from the given digits; equal seeds give equal scenes.

    Args:
        digits: Float array `(count, 8, 8)` in [0, 1].
        labels: Int array `(count,)`.
        seed: List of ints for `numpy.random.RandomState`.

    Returns:
        The image and its mask, both uint8 `(CANVAS, CANVAS)`. The mask is the label + 1 on a digit, or else 0.
    """
    # RandomState, not default_rng: NumPy promises that its streams never change.
    random = np.random.RandomState(seed)
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] / (CANVAS - 1) - 0.5
    angle = random.uniform(0, 2 * math.pi)
    slope = random.uniform(0.0, 0.35)
    image = random.uniform(0.15, 0.35) + slope * (math.cos(angle) * x + math.sin(angle) * y)
    image += 0.6 * ndimage.gaussian_filter(random.normal(size=(CANVAS, CANVAS)), sigma=5, mode="wrap")
    mask = np.zeros((CANVAS, CANVAS), np.uint8)

    for row, column, size in _places(random):
        index = random.randint(len(digits))
        ink = random.uniform(0.65, 1.0)
        strength = _render(digits[index], row, column, size, random.uniform(-25, 25))
        # The scan is only 8x8: a steep ramp gives the enlarged strokes crisp edges.
        alpha = np.clip(2.5 * (strength - 0.4) + 0.5, 0, 1)
        image = (1 - alpha) * image + alpha * ink
        mask[alpha > 0.5] = labels[index] + 1

    image += random.uniform(0.02, 0.07) * random.normal(size=image.shape)
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), mask


def _places(random: np.random.RandomState) -> list[tuple[float, float, float]]:
    """Draws (row, column, size) of up to six digits that hardly touch. A digit without enough room is left out."""
    places: list[tuple[float, float, float]] = []
    # The largest come first, because they are the hardest to place.
    for size in sorted(random.uniform(16, 32, size=random.randint(3, 7)), reverse=True):
        for _ in range(30):
            row, column = random.uniform(size / 2, CANVAS - size / 2, size=2)
            if all(math.hypot(row - r, column - c) > 0.45 * (size + s) for r, c, s in places):
                places.append((row, column, size))
                break
    return places


def _render(digit: np.ndarray, row: float, column: float, size: float, degrees: float) -> np.ndarray:
    """Draws an 8x8 digit on an empty canvas: `size` pixels tall, turned, and centred on (row, column)."""
    padded = np.pad(digit, 2)  # so that the spline sees where the ink ends
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    matrix = np.array([[cosine, -sine], [sine, cosine]]) * 8 / size  # from the canvas to the digit
    middle = (len(padded) - 1) / 2
    offset = (
        middle - matrix[0, 0] * row - matrix[0, 1] * column,
        middle - matrix[1, 0] * row - matrix[1, 1] * column,
    )
    return ndimage.affine_transform(padded, matrix, offset, output_shape=(CANVAS, CANVAS), order=3)


class Digits(tfds.core.GeneratorBasedBuilder):
    """The digits of scikit-learn: 8x8 pixels, grey, ten classes."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,797 handwritten digits of 8x8 pixels, as they come with scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        images, labels = digits_by_split()[split]
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": np.rint(255 * image[..., None]).astype(np.uint8), "label": label}


class DigitScenes(tfds.core.GeneratorBasedBuilder):
    """Digits scattered over a noisy canvas, with the class of every pixel."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (CANVAS, CANVAS, 1)
        names = ["background", *(str(digit) for digit in range(10))]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Scenes of scattered, turned, scaled and noised handwritten digits, with the class of "
            "each pixel. The scenes of a split only contain digits of the same split.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=shape),
                    "segmentation_mask": tfds.features.LabeledImage(labels=names, shape=shape),
                }
            ),
            supervised_keys=("image", "segmentation_mask"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in SCENES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        digits, labels = digits_by_split()[split]
        for index in range(SCENES[split]):
            image, mask = draw_scene(digits, labels, seed=[list(SCENES).index(split), index])
            yield index, {"image": image[..., None], "segmentation_mask": mask[..., None]}
