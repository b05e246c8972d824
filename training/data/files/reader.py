"""Reads the samples of a table one by one, in the graph where TensorFlow decodes the file, or else in Python."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from dropzoo.common.images import PNG
from dropzoo.training.data.files.drawing import draw
from dropzoo.training.data.files.headers import Facts
from dropzoo.training.data.files.masks import Meaning, read_ids
from dropzoo.training.data.files.table import Drawn, Sample
from dropzoo.training.data.files.threads import map_files
from dropzoo.training.data.images import as_fractions, read_image, stated_orientation, usual, with_channels


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads samples as examples `(image, label or mask)`.

    Attributes:
        samples: The samples.
        facts: The facts about the files of the images.
        shape: The height, width and channels of all images; None where they differ.
        dtype: The type of the images: uint8, uint16, or float32 in [0, 1].
        value_range: The values that become 0 and 1, or None.
        meaning: How masks become ids.
        classes: The class of each stored id.
        ids: The type of the masks.
        ignore_class: The label of pixels that do not count, or None.
    """

    samples: list[Sample]
    facts: dict[Path, Facts]
    shape: tuple[int | None, int | None, int]
    dtype: str
    value_range: tuple[float, float] | None = None
    meaning: Meaning = Meaning()
    classes: dict[int, int] = dataclasses.field(default_factory=dict)
    ids: str = "uint8"
    ignore_class: int | None = None

    def image(self, number: int) -> np.ndarray:
        """Returns the image of a sample."""
        sample = self.samples[number]
        image = usual(read_image(sample.image, sample.page), sample.image, self.value_range)
        if image.dtype != self.dtype:
            image = as_fractions(image)
        return with_channels(image, self.shape[2])

    def mask(self, number: int) -> np.ndarray:
        """Returns the mask of a sample as classes, `(height, width, 1)`."""
        ids = read_ids(self.samples[number], self.meaning)
        if any(value != number for value, number in self.classes.items()):
            ids = np.where(ids == max(self.classes), self.classes[max(self.classes)], ids)
        return ids.astype(self.ids)[..., None]

    def example(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the image of a sample, and its mask `(height, width)` or None."""
        return self.image(number), None if self.samples[number].mask is None else self.mask(number)[..., 0]

    def objects(self, number: int) -> np.ndarray:
        """Returns the mask of a sample with a number for each object, `(height, width)`; 0 is the background."""
        sample = self.samples[number]
        if isinstance(sample.mask, Drawn):
            return draw(sample.mask, self.meaning.inside, apart=True)
        return read_ids(sample, Meaning(found=False))

    def find_broken(self) -> dict[Path, str]:
        """Returns the reason for each file that cannot be decoded; it decodes all of them."""

        def reason(number: int) -> str:
            try:
                self.example(number)
            except ValueError as error:
                return str(error)
            return ""

        found = map_files(reason, range(len(self.samples)))
        broken = {}
        for sample, text in zip(self.samples, found, strict=True):
            if text:  # which names the image or a file of its mask
                broken[next((file for file in sample.files if str(file) in text), sample.image)] = text
        return broken


class Examples:
    """The examples of some samples, each read when it is asked for."""

    def __init__(self, reader: Reader, numbers: np.ndarray) -> None:
        self._reader, self._numbers = reader, numbers
        samples = [reader.samples[number] for number in numbers]
        self.labels = np.array([sample.label for sample in samples], np.int32)
        self.groups = tuple(sample.group for sample in samples)
        self._has_masks = bool(samples) and samples[0].mask is not None
        # Constants of the graph would be copied into each one, so these are captured tensors.
        self._paths = tf.constant([str(sample.image) for sample in samples])
        self._of_samples = tf.constant(numbers, tf.int64)
        self._classes = tf.constant(self.labels)
        self._plain = tf.constant([self._is_plain(sample) for sample in samples])
        self._all_plain = bool(samples) and bool(np.all(self._plain.numpy()))
        self._none_plain = not np.any(self._plain.numpy())
        if self._has_masks:
            masks = ["" if isinstance(each.mask, Drawn) else str(each.mask) for each in samples]
            self._masks = tf.constant(masks)
            simple = reader.meaning.kind in ("ids", "instances") and reader.ids == "uint8"
            plain = [simple and _is_grey_png(sample) for sample in samples]
            self._plain_masks = tf.constant(plain)
            self._all_plain_masks, self._no_plain_masks = all(plain), not any(plain)
            self._table = tf.constant(self._lookup(), tf.uint8)

    def _is_plain(self, sample: Sample) -> bool:
        facts = self._reader.facts[sample.image]
        same = facts.channels == self._reader.shape[2] and facts.dtype == self._reader.dtype
        return facts.plain and same and facts.dtype in ("uint8", "uint16")

    def _lookup(self) -> np.ndarray:
        """Returns the class of each number that 8 bits can store."""
        numbers = np.arange(256)
        if self._reader.meaning.kind == "instances":
            return (numbers > 0).astype(np.uint8)
        for stored, number in self._reader.classes.items():
            if stored < 256:
                numbers[stored] = number
        return numbers

    def read(self, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the example at a place, a scalar counted from 0; in a graph."""
        image = self._image(place)
        if not self._has_masks:
            return image, tf.gather(self._classes, place)
        mask = self._mask(place)
        height, width, _ = self._reader.shape
        mask.set_shape((height, width, 1))
        return image, mask

    def _image(self, place: tf.Tensor) -> tf.Tensor:
        dtype = tf.as_dtype(self._reader.dtype)

        def decoded() -> tf.Tensor:
            data = tf.io.read_file(tf.gather(self._paths, place))
            channels = self._reader.shape[2]  # without alpha
            return tf.io.decode_image(data, channels, dtype, expand_animations=False)

        def read() -> tf.Tensor:
            return tf.numpy_function(
                self._reader.image, [tf.gather(self._of_samples, place)], dtype, stateful=False
            )

        image = self._either(self._all_plain, self._none_plain, tf.gather(self._plain, place), decoded, read)
        image.set_shape(self._reader.shape)
        return image

    def _mask(self, place: tf.Tensor) -> tf.Tensor:
        def decoded() -> tf.Tensor:
            data = tf.io.read_file(tf.gather(self._masks, place))
            stored = tf.io.decode_png(data, channels=1)
            return tf.gather(self._table, tf.cast(stored, tf.int32))

        def read() -> tf.Tensor:
            number = tf.gather(self._of_samples, place)
            return tf.numpy_function(self._reader.mask, [number], tf.as_dtype(self._reader.ids), stateful=False)

        plain = tf.gather(self._plain_masks, place)
        return self._either(self._all_plain_masks, self._no_plain_masks, plain, decoded, read)

    @staticmethod
    def _either(
        always: bool, never: bool, here: tf.Tensor, decoded: Callable[[], tf.Tensor], read: Callable[[], tf.Tensor]
    ) -> tf.Tensor:
        if always or never:
            return decoded() if always else read()
        return tf.cond(here, decoded, read)


def _is_grey_png(sample: Sample) -> bool:
    """Returns whether a mask is a grey PNG of 8 bits that is not turned, whose numbers TensorFlow decodes."""
    if not isinstance(sample.mask, Path) or sample.page is not None:
        return False
    with sample.mask.open("rb") as file:
        header = file.read(26)
        return header.startswith(PNG) and header[24:26] == b"\x08\x00" and stated_orientation(file) == 1
