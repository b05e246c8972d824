"""Mixup and CutMix: each example of a batch is mixed with another one, and the labels of both count."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from dropzoo.training.loop import batches
from dropzoo.training.loop.batches import Batch


class Mixed(NamedTuple):
    """A batch, and the targets of the examples that it was mixed with.

    Attributes:
        batch: The batch, `(x, y)` or `(x, y, sample_weight)`, with mixed inputs and its own targets.
        partner: The targets, and the weights if there are any, of the other examples; empty if nothing was mixed.
        share: Float, the share of the batch's own targets in the loss; None if nothing was mixed.
    """

    batch: Batch
    partner: tuple[Any, ...] = ()
    share: tf.Tensor | None = None


class Mixing:
    """The mixing of the examples in each training batch, a function of the seed and of the position in the run.

    The order of the batch is reversed for the partners. All examples of a batch are mixed in the same proportion.
    The share of an example in its own input is at least a half, so its own label is that of the larger part. With
    both mixup and CutMix, each batch gets one of them, with equal odds.

    Args:
        mixup: Float, 0 or more. The parameter of the Beta distribution of the shares; 0 for no mixup.
        cutmix: Float, 0 or more. The same for CutMix.
        model: The model, for the check that it answers with one vector for each example.

    Raises:
        ValueError: If `mixup` or `cutmix` is not such a number, or the model cannot be trained on mixed examples.

    Reference:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2017, arXiv:1710.09412. Yun et al., "CutMix:
        Regularization Strategy to Train Strong Classifiers with Localizable Features", 2019, arXiv:1905.04899.
    """

    def __init__(self, mixup: float, cutmix: float, model: keras.Model) -> None:
        self.mixup, self.cutmix = check_mix(mixup, "mixup"), check_mix(cutmix, "cutmix")
        if not self:
            return
        if batches.has_own_step(model):
            raise ValueError(
                "`mixup` and `cutmix` need Keras' `train_step`, but the model has its own. Received: "
                f"mixup={mixup}, cutmix={cutmix}"
            )
        output = batches.output(model)
        if output is not None and output.rank > 2:
            raise of_masks()

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    @property
    def described(self) -> Sequence[str]:
        """The settings that a resumed run must not change."""
        return [f"trainer.{name}: {getattr(self, name)}" for name in ("mixup", "cutmix") if getattr(self, name)]

    def apply(self, batch: Batch, position: tf.Tensor) -> Mixed:
        """Returns a mixed batch, or the batch as it is if nothing is to be mixed.

        Args:
            batch: `(x, y)` or `(x, y, sample_weight)`.
            position: Int64 tensor of a seed, the epoch and the step within it.

        Raises:
            ValueError: If the batch has no targets, or several inputs, or inputs that cannot be mixed.
        """
        if not self:
            return Mixed(batch)
        if not isinstance(batch, tuple) or len(batch) < 2:
            raise ValueError("`mixup` and `cutmix` also mix the targets: pass batches of (x, y)")
        x = tf.nest.flatten(batch[0])
        if len(x) > 1 or x[0].shape.rank < 2 or (not x[0].dtype.is_floating and x[0].shape.rank < 4):
            raise ValueError(
                f"`mixup` and `cutmix` need one input: images, or other arrays of floats. Received: {batch[0]}"
            )
        seed, epoch, step = tf.unstack(position)
        seeds = [tf.stack([seed + epoch * 2654435761, 4 * step + use]) for use in range(4)]
        if not self.mixup or not self.cutmix:
            mixed, share = _mix(x[0], self.mixup, seeds) if self.mixup else _cut(x[0], self.cutmix, seeds)
        else:
            mixed, share = tf.cond(
                tf.random.stateless_uniform((), seeds[3]) < 0.5,
                lambda: _mix(x[0], self.mixup, seeds),
                lambda: _cut(x[0], self.cutmix, seeds),
            )
        partner = tf.nest.map_structure(_reversed, batch[1:])
        return Mixed((tf.nest.pack_sequence_as(batch[0], [mixed]), *batch[1:]), partner, share)


def check_mix(value: object, name: str) -> float:
    """Returns a float of 0 or more, or raises a ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ValueError(f"`{name}` must be a number of 0 or more, such as 0.2. Received: {name}={value!r}")
    return float(value)


def of_masks() -> ValueError:
    """Returns the error for a model whose answers have more axes than a vector for each example."""
    return ValueError(
        "`mixup` and `cutmix` are for models that return one vector for each image, but this model returns a "
        "map. For masks, change the images with `augment`, such as elastic=8"
    )


def _reversed(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reverse(tensor, [0])


def _share(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Returns a draw from Beta(alpha, alpha), or 1 minus it, whichever is larger."""
    both = tf.random.stateless_gamma([2], seed, tf.constant(alpha, tf.float64), dtype=tf.float64)
    total = tf.reduce_sum(both)
    share = tf.where(total > 0, both[0] / tf.maximum(total, 1e-300), 1.0)  # tiny alphas draw two zeros
    return tf.cast(tf.maximum(share, 1 - share), tf.float32)


def _mix(x: tf.Tensor, alpha: float, seeds: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the weighted means of the examples and their partners, and the weight of the examples."""
    share = _share(alpha, seeds[0])
    if x.dtype.is_floating:
        own = tf.cast(share, x.dtype)
        return own * x + (1 - own) * _reversed(x), share
    wide = tf.cast(x, tf.float32)
    return tf.saturate_cast(tf.round(share * wide + (1 - share) * _reversed(wide)), x.dtype), share


def _cut(x: tf.Tensor, alpha: float, seeds: Sequence[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the examples with a box of their partners, and the share of the examples outside of the box."""
    if x.shape.rank < 4:
        raise ValueError(f"`cutmix` needs images. Received: inputs of the shape {x.shape}")
    share = _share(alpha, seeds[0])
    axes = x.shape.rank - 2
    side = (1 - share) ** (1 / axes)
    centres = tf.unstack(tf.random.stateless_uniform([axes], seeds[1]))
    inside = tf.constant(True)
    for axis, centre in enumerate(centres, start=1):
        size = tf.cast(tf.shape(x)[axis], tf.float32)
        low, high = (tf.round((centre + half * side) * size) for half in (-0.5, 0.5))
        places = tf.range(size)
        shape = [-1 if n == axis else 1 for n in range(x.shape.rank)]
        inside = inside & tf.reshape((places >= low) & (places < high), shape)
    return tf.where(inside, _reversed(x), x), 1 - tf.reduce_mean(tf.cast(inside, tf.float32))
