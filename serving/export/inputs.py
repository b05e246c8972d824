"""The inputs of an export's signatures: the values in a request, and how they become the inputs of the model."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.images import CHANNELS
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.inputs import pixels_of
from dropzoo.serving.decode import decode_file, is_deep
from dropzoo.serving.export.resizing import resized
from dropzoo.serving.montecarlo.ensembles import Rival
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.sampler import MonteCarlo


@dataclass(frozen=True)
class Input:
    """One input of a model, and how a request sends it.

    Attributes:
        name: Its name in the signatures.
        file_name: Its name in `predict_bytes`, where a request sends files.
        shape: The shape that the model takes, with the batch axis.
        model_dtype: The dtype that the model takes.
        dtype: The dtype in a request.
        pixels: The images that the model takes; None if the input is not an image.
        resize: `(height, width)` to which images are resized, or None.
        portable: Whether images are resized by operations that every runtime has.
    """

    name: str
    file_name: str
    shape: tuple[int | None, ...]
    model_dtype: str
    dtype: str
    pixels: Pixels | None = None
    resize: tuple[int, int] | None = None
    portable: bool = False

    @property
    def spec(self) -> tf.TensorSpec:
        """The shape and the dtype of the input in a request."""
        if not self.resize:
            return tf.TensorSpec([None, *self.shape[1:]], self.dtype, self.name)
        sides = [None, None]
        shape = [self.channels, *sides] if self.channels_first else [*sides, self.channels]
        return tf.TensorSpec([None, *shape], self.dtype, self.name)

    @property
    def file_spec(self) -> tf.TensorSpec:
        """The shape and the dtype of the input of `predict_bytes`: strings if it can be read from files."""
        return tf.TensorSpec([None], tf.string, self.file_name) if self.is_file else self.spec

    @property
    def is_file(self) -> bool:
        """Whether the input can be read from image files."""
        known = self.pixels is not None and self.pixels.from_files
        return known and len(self.shape) == 4 and self.channels in CHANNELS

    @property
    def channels_first(self) -> bool:
        """Whether the channels of images come before their height and width, in requests and in the model."""
        return (self.pixels or Pixels()).channels_first(self.shape)

    @property
    def channels(self) -> int | None:
        """The number of channels."""
        return self.shape[1] if self.channels_first else self.shape[-1]

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """`(height, width)` of all images that reach the model, or None if their sizes differ."""
        if len(self.shape) != 4:
            return None
        sides = self.shape[2:4] if self.channels_first else self.shape[1:3]
        height, width = self.resize or sides
        return None if height is None or width is None else (height, width)

    def facts(self) -> dict[str, object]:
        """Returns the entry of the card about the input."""
        facts: dict[str, object] = {"shape": list(self.spec.shape[1:]), "dtype": self.dtype, "resize": self.resize}
        if self.pixels is None:
            return facts
        return facts | {"pixels": self.pixels.words, "bits": self.pixels.bits, "order": self.pixels.order}

    def info(self) -> dict[str, object]:
        """Returns the entry of `info.json` about the input."""
        pixels = None if self.pixels is None else dataclasses.asdict(self.pixels)
        return {"name": self.name, "file_name": self.file_name if self.is_file else None, "pixels": pixels}

    def taken(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the values of a request in the shape, range and dtype that the model takes."""
        if self.dtype == self.model_dtype and not self.resize:
            return values
        if self.pixels is None and self.dtype not in ("uint8", "uint16"):
            return tf.cast(values, self.model_dtype)
        numbers = tf.cast(values, tf.float32)
        if self.dtype.startswith("uint") and self.dtype != self.model_dtype:
            numbers /= tf.as_dtype(self.dtype).max
            numbers = numbers if self.pixels is None else self.pixels.spread(numbers)
        if not self.channels_first:
            return self._cast(self._resized(numbers, self.resize))
        resized = self._resized(tf.transpose(numbers, [0, 2, 3, 1]), self.resize)
        return self._cast(tf.transpose(resized, [0, 3, 1, 2]))

    def decoded(self, files: tf.Tensor) -> tf.Tensor:
        """Returns PNG or JPEG files, `(batch,)`, as images for the model.

        They are resized to the model's size. If it takes any size, all files must have the same size.
        """
        pixels, channels = self.pixels or Pixels(), self.channels or 3

        def decode(data: tf.Tensor) -> tf.Tensor:
            checks = [_check_deep(data, pixels)] if pixels.bits == 16 else []
            with tf.control_dependencies(checks):
                image = decode_file(data, channels)
                if pixels.stored is not None:
                    largest = tf.where(is_deep(data), 65535.0, 255.0)
                    image = tf.clip_by_value(pixels.fractions(image * largest, 1.0), 0.0, 1.0)
                image = pixels.scaled(image)
            image = self._cast(self._resized(image[None], self.fixed_size))[0]
            return tf.transpose(image, [2, 0, 1]) if self.channels_first else image

        sides = self.fixed_size or (None, None)
        each = tf.TensorSpec([channels, *sides] if self.channels_first else [*sides, channels], self._dtype)
        return tf.map_fn(decode, files, fn_output_signature=each)

    @property
    def _dtype(self) -> tf.DType:
        """The dtype in which the model gets images; Keras casts floats itself."""
        wanted = tf.as_dtype(self.model_dtype)
        return wanted if wanted.is_integer else tf.float32

    def _cast(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.round(images), self._dtype) if self._dtype.is_integer else images

    def _resized(self, images: tf.Tensor, size: tuple[int, int] | None) -> tf.Tensor:
        if size is None:
            return images
        return resized(images, size) if self.portable else tf.image.resize(images, size, antialias=True)


def specs_of(reader: Reader, sampler: MonteCarlo | Rival | None) -> dict[str, tf.TensorSpec]:
    """Returns the shape, with the batch axis, and the dtype of each input of a model, by its name.

    A model with a `call` of its own shows its inputs only when it runs, so it is run on random images of the shape
    with which it was built.

    Args:
        reader: The model.
        sampler: The samples or the ensemble, which must see the random images too, or None.

    Raises:
        ValueError: If the model was not built by a call.
    """
    if reader.known:
        return dict(zip(reader.inputs.names, reader.inputs.specs, strict=True))
    built = (reader.model.get_build_config() or {}).get("input_shape")
    if built is None:
        raise ValueError(
            "A subclassed model must be built, so that its inputs are known: call it on a batch before the "
            f"export. Received: {reader.model!r}"
        )
    low, high = (pixels_of(reader.model) or Pixels()).range
    random = np.random.default_rng(0)
    batch = keras.tree.map_shape_structure(
        lambda shape: random.uniform(low, high, [4, *shape[1:]]).astype("float32"), built
    )
    (reader.check if sampler is None else sampler)(batch)
    shapes = [[None, *each.shape[1:]] for each in keras.tree.flatten(batch)]
    return {name: tf.TensorSpec(shape) for name, shape in zip(reader.inputs.names, shapes, strict=True)}


def settle(reader: Reader, inputs: Sequence[Input]) -> None:
    """Finds the meanings of the outputs by a random batch in the model's range, if the graph does not show them.

    Args:
        reader: The model.
        inputs: Its inputs.

    Raises:
        ValueError: If the outputs could be logits or probabilities.
    """
    if reader.settled:
        return
    batch = []
    for place, each in enumerate(inputs):
        low, high = (0.0, 1.0) if each.pixels is None else each.pixels.range
        batch.append(reader.inputs.example(low=low, high=high)[place])
    reader.check(reader.inputs.pack(batch))


def inputs_of(
    specs: Mapping[str, tf.TensorSpec],
    image_dtype: str,
    resize: tuple[int, int] | None,
    pixels: Sequence[Pixels | None],
) -> list[Input]:
    """Returns the inputs of a model's signatures, in the model's order.

    The only input of a model of images is called `images`, and `image_bytes` where a request sends files. Several
    inputs have their names in the model, with `_bytes` at the end where a request sends files. The only input of a
    model of tokens or texts has its name in the model too.

    Args:
        specs: The shape and the dtype of each input of the model, by its name.
        image_dtype: Dtype of the images in a request: `"float32"`, `"uint8"` or `"uint16"`.
        resize: `(height, width)` to which every image is resized, or None.
        pixels: The images that each input takes; None for inputs that are not images.

    Raises:
        ValueError: If images cannot be sent in `image_dtype`, or two inputs would have the same name.
    """
    found: list[Input] = []
    for (name, spec), each in zip(specs.items(), pixels, strict=True):
        single, dtype = len(specs) == 1, spec.dtype.name
        image = each is not None or (single and spec.dtype.is_floating)
        safe = re.sub(r"\W", "_", name)  # the names in a signature must be valid in Python
        signature_name = "images" if single and image else safe
        file_name = "image_bytes" if single else f"{safe}_bytes"
        # Beside images in another dtype, integers such as maps of labels keep theirs.
        own = not single and not spec.dtype.is_floating and image_dtype != _stored(dtype)
        sent = image_dtype if image and not own else dtype
        if each is not None and not own:
            _check_dtype(sent, dtype, each)
        size = resize if each is not None and len(spec.shape) == 4 else None
        found.append(Input(signature_name, file_name, tuple(spec.shape), dtype, sent, each, size))
    _check_names(found)
    return found


def _check_names(inputs: Sequence[Input]) -> None:
    """Raises a ValueError if two inputs have the same name in a signature."""
    in_files = [each.file_name if each.is_file else each.name for each in inputs]
    for names in ([each.name for each in inputs], in_files):
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"Each input needs its own name, but two would be called {twice[0]!r}: characters other than "
                f"letters and digits become '_' in the signatures, and `_bytes` is added where files are sent. "
                "Rename one: keras.Input(..., name=...)"
            )


def _check_dtype(image_dtype: str, dtype: str, pixels: Pixels) -> None:
    """Raises a ValueError if images in this dtype cannot hold the pixels that the model takes."""
    if pixels.stored is not None and image_dtype != "float32":
        low, high = pixels.stored
        raise ValueError(
            f"The model was trained on files with black at {low:g} and white at {high:g} (`value_range`), and "
            f"arrays of integers cannot be scaled by this range. Received: image_dtype={image_dtype!r}. Export "
            "the model with image_dtype='float32', and scale the images before you send them"
        )
    if not tf.as_dtype(dtype).is_floating:
        wanted = _stored(dtype)
        if image_dtype != wanted:
            raise ValueError(
                f"The model takes {dtype}, so pixels are not converted: pass image_dtype={wanted!r}. "
                f"Received: image_dtype={image_dtype!r}"
            )
    elif image_dtype != "float32":
        pixels.check_files()
    if tf.as_dtype(dtype).is_floating and image_dtype == "uint8" and pixels.bits == 16:
        raise ValueError(
            f"The model takes 16-bit images, with pixels from {pixels.words}. Pass image_dtype='uint16', or "
            f"'float32'. Received: image_dtype='uint8'"
        )


def _stored(dtype: str) -> str:
    """The dtype in which files store the pixels of a model of integers."""
    return "uint16" if dtype == "uint16" else "uint8"


def _check_deep(data: tf.Tensor, pixels: Pixels) -> tf.Operation:
    return tf.debugging.Assert(
        is_deep(data), [f"The model takes images of 16 bits, {pixels.words}: send PNG files of 16 bits"]
    )
