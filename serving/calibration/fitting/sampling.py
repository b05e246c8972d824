"""Reads the samples of a source for held-out images, and computes their statistics at a temperature."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf

from dropzoo.serving.calibration.fitting.heldout import Batch, HeldOut
from dropzoo.serving.calibration.fitting.sources import Source
from dropzoo.serving.calibration.temperature import temper
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.statistics import Sums


class Reader:
    """Reads the answers of predictors for held-out images, with a progress bar.

    Args:
        heldout: The held-out images.
        total: Int, the number of images that will be read; an image that is read twice counts twice.
        verbose: 1 for a progress bar, 0 for none.
    """

    def __init__(self, heldout: HeldOut, total: int, verbose: int) -> None:
        self._heldout = heldout
        self._bar = keras.utils.Progbar(total, verbose=verbose, unit_name="image") if verbose and total else None

    def answers(self, source: Source, part: set[int]) -> Iterator[tuple[Batch, tf.Tensor]]:
        """Yields the images of a part with the samples of a predictor, `(batch, samples, ..., outputs)`.

        Args:
            source: The predictor.
            part: Keys of images.

        Raises:
            ValueError: If the model does not answer for each position that has a label.
        """
        for batch in self._heldout.batches(part, source.num_samples * (source.output.classes or 1)):
            samples = source.samples(batch.inputs)
            check_positions(samples, batch)
            yield batch, samples
            if self._bar is not None:
                self._bar.add(len(batch.keys))


def by_position(samples: tf.Tensor) -> np.ndarray:
    """Returns samples `(batch, samples, ..., outputs)` as an array `(batch, samples, positions, outputs)`."""
    p = samples.numpy()
    return p.reshape(*p.shape[:2], -1, p.shape[-1])


def check_positions(samples: tf.Tensor, batch: Batch) -> None:
    """Raises a ValueError if the model does not answer for each position that has a label."""
    positions = int(np.prod(samples.shape[2:-1]))
    if positions != batch.labels.shape[1]:
        raise ValueError(
            f"`labels` must have the size of the model's output. Received: {batch.labels.shape[1]} labels for an "
            f"image, but the output has {positions} pixels"
        )


def statistics_at(
    samples: tf.Tensor, temperature: float | Sequence[float], output: Output
) -> dict[str, tf.Tensor]:
    """Returns the statistics of samples at a temperature, as `MonteCarlo` returns them, with the axis of classes.

    Args:
        samples: Float32 tensor `(batch, samples, ..., outputs)`.
        temperature: Float above 0, or one for each class.
        output: The output of the model.
    """
    p = tf.experimental.numpy.moveaxis(temper(samples, temperature, output.kind), 1, 0)
    return Sums.zero(output).add(p, output.kind).statistics(samples.shape[1], replace(output, flat=False))
