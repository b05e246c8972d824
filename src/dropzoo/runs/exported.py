"""A SavedModel as a function of images, and what its `info.json` says."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dropzoo.common.images import image_shape
from dropzoo.common.pixels import Pixels, check_range
from dropzoo.runs.files import read_json
from dropzoo.runs.inputs import feeding_of
from dropzoo.runs.statistics import Arrays


class Export:
    """A SavedModel that takes one image input and gives one answer.

    Args:
        path: Path of the folder.
        info: The content of its `info.json`.
        pixels: The range of the images that it takes.

    Attributes:
        input_shape: `(height, width, channels)`, with None for a size that is not fixed.
        pixels: As the argument.
        samples: Bool, whether it draws Monte-Carlo samples.
        output_shape: The shape of its output, with the batch.
        outputs: The names of its answers.

    Raises:
        ValueError: If it has several inputs or outputs, or takes no image.
    """

    def __init__(self, path: Path, info: dict[str, Any], pixels: Pixels) -> None:
        self._loaded = tf.saved_model.load(str(path))  # its signatures do not work without it
        self._signatures = self._loaded.signatures
        default = self._signatures["serving_default"]
        specs, outputs = default.structured_input_signature[1], default.structured_outputs
        if list(specs) != ["images"] or len(info.get("outputs") or [{}]) > 1:
            raise ValueError(
                f"Expected one image input and one output. Received: {path}, which takes "
                f"{', '.join(sorted(specs))} and returns {', '.join(sorted(outputs))}. Use: dropzoo serve"
            )
        spec = specs["images"]
        pixels.check_files()
        # An export scales images of integers itself.
        whole = spec.dtype.is_integer
        stored = dataclasses.replace(pixels, low=0.0, high=float(spec.dtype.max)) if whole else pixels
        self._feed = feeding_of(stored, spec.dtype.name, pixels.channels_first(spec.shape))
        shape = image_shape(tuple(spec.shape), pixels.channels_first(spec.shape))
        self._name = "values" if "values" in outputs else "probabilities"
        self.input_shape, self.pixels = shape, pixels
        self.samples = "predict_mc" in self._signatures
        self.output_shape = tuple(outputs[self._name].shape)
        self.outputs = frozenset(self._signatures["predict_mc"].structured_outputs if self.samples else outputs)

    def __call__(self, images: np.ndarray) -> Arrays:
        """Returns the statistics of float32 images in [0, 1], `(batch, height, width, channels)`."""
        given = self._feed(tf.constant(images))
        if self.samples:
            return {name: value.numpy() for name, value in self._signatures["predict_mc"](images=given).items()}
        found = self._signatures["serving_default"](images=given)
        more = {
            name: value.numpy() for name, value in found.items() if name not in (self._name, "classes", "labels")
        }
        return {"mean": found[self._name].numpy(), **more}


def facts_of_export(path: Path) -> dict[str, Any]:
    """Returns the content of the `info.json` of an export."""
    facts = path / "assets.extra" / "info.json"
    return read_json(facts) if facts.exists() else {}


def pixels_of_export(path: Path, info: dict[str, Any], said: tuple[float, float] | None) -> Pixels:
    """Returns the range that an export takes: that of its `info.json`, or else `said`."""
    inputs = info.get("inputs") or [{}]
    pixels = Pixels(**inputs[0].get("pixels") or {})
    if said is None or check_range(said) == pixels.range:
        return pixels
    if pixels.source and pixels.from_files:
        raise ValueError(
            f"The export {path} takes pixels from {pixels.words}. Received: --input-range {said!r}. Leave "
            "--input-range out"
        )
    return pixels.of_range(*check_range(said))
