"""Monte-Carlo dropout: predictions with the dropout left on, averaged, with their uncertainty."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import check_count, check_seed, unknown
from dropzoo.layers.draws import Draw
from dropzoo.layers.draws.samples import SampleDraw, SharedMaskError
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.use import answered, check_calibration, sampling_of, tempered
from dropzoo.serving.montecarlo.active import TRACING
from dropzoo.serving.montecarlo.attribution import Attribution, attribution_of
from dropzoo.serving.montecarlo.counts import check_auto, count_or_auto
from dropzoo.serving.montecarlo.cut import Cut, fill_shapes, make_cut
from dropzoo.serving.montecarlo.folding import tile, unfold
from dropzoo.serving.montecarlo.inputs import InputsLike, emptied, filled, keys_of
from dropzoo.serving.montecarlo.outputs import by_output, joined
from dropzoo.serving.montecarlo.reader import Reader, Said, Tasks
from dropzoo.serving.montecarlo.stage import Stage
from dropzoo.serving.montecarlo.statistics import Sums, sum_samples, sum_until

_SAMPLINGS = ("balanced", "independent", "fixed")
_SAMPLES = 30
_GROUP = 8  # with num_samples="auto", samples are balanced within groups of this size, and compared group by group


class MonteCarlo:
    """Samples a model with its dropout on and returns the mean and the uncertainty.

    The spread of the samples (mutual information) shows where a model is unsure because it has not seen enough
    data. It does not grow where the classes themselves overlap. Only the dropout layers are on. BatchNorm and all
    other layers run in inference mode, and the state of the model, including its seeds, does not change.

    Every layer that draws at random is sampled. The sampler draws the masks of this package's dropout layers and
    of those of Keras. Everything else is sampled by plain passes: dropout inside recurrent layers, a drop path of
    your own, `tf.nn.dropout` in a lambda. Such a layer runs in training mode once for each sample, while batch
    normalisation and image augmentation stay in inference mode. Its masks belong to the rows of a batch and not to
    the images, so `sampling` has no effect on them, and samples are not folded. A draw without a seed of Keras
    differs from call to call, and a warning names it. `cut()` lists the layers that are sampled by plain passes,
    and says why.

    Let `p_t` be the probabilities of sample `t` of T. Then
    `mean = avg p_t`, `variance = avg p_t**2 - mean**2` (divided by T, since balanced samples are not independent),
    `predictive_entropy = H(mean)` and `mutual_information = H(mean) - avg H(p_t)`, in nats. For a single logit,
    `p_t` is its sigmoid, and the entropies are those of a coin. See `task` for other outputs.

    Each sample begins with the states that the stateful layers of the model have, as a single pass would.

    Layers that no active dropout reaches are computed once instead of T times, and small samples are computed
    several at a time. Neither changes the masks, and the statistics change only by rounding. `cut()` returns how
    much the first of these saves.

    Args:
        model: A Keras model that draws at random. It may have several inputs and outputs of any dtype, and a
            `call` of its own; the first call shows the inputs and outputs of a subclassed model. Outputs are
            logits, probabilities or values: see `task` and `from_logits`.
        num_samples: Int, the number T of samples, or `"auto"` for as many as each image needs.
        sampling: `"balanced"`: each unit's draws are stratified over the T samples. Each sample has the same
            distribution as an independent one, and the mean has a smaller error. `"independent"`: independent
            masks. `"fixed"`: independent masks, the same T for all images, so that tiles and video frames agree.
            Unless this is `"fixed"`, the masks of an image depend on the seed and on the content of its inputs.
        sites: Dict that selects the dropout layers that are on; None for all. The keys are names or patterns of
            sites, as in `models.list_sites`. The values are True, for the layer's live rate, or another rate in
            [0, 1).
        seed: Int in [0, 2**32). Neither setting it later nor passing one to a call traces the model again.
        cache: Bool, whether layers that no active dropout reaches are computed once.
        fold: Int, how many samples are computed at a time, as one larger batch, or `"auto"` for as many as
            `memory_budget` allows.
        memory_budget: Int, bytes of activations that `fold="auto"` may use; a single sample may need more. On a
            CPU, budgets well above 32 MiB are slower, because activations no longer fit in the cache.
        tolerance: Float of at least 0, for `num_samples="auto"`. An image has enough samples when the standard
            error of its mean, as the root mean square over classes and pixels, is at most `tolerance`. For
            regression it is in the unit of the output. A dict gives it for each output by name. Defaults to 0.01.
        max_samples: Int, the largest number of samples for `num_samples="auto"`. Samples are taken in groups of 8,
            so a larger number is rounded down to a multiple of 8. Defaults to 128.
        return_samples: Bool, whether to return the probabilities of each sample too.
        task: What the model's output means. `"multi_class"`: logits of classes that exclude each other, or one
            logit for the second of two classes. `"binary"`: only one logit, for the second of two classes.
            `"multi_label"`: one logit for each label; several labels may be on together, and the entropies are
            summed over the labels. `"regression"`: values; there are no entropies. For several outputs, a dict
            by name or a list in order; a single string is for all outputs. By default, the loss that the model was
            compiled with tells regression and labels, and any other output is `"multi_class"`.
        from_logits: Bool, whether the output is logits; for several outputs also a dict by name or a list in
            order. By default the graph of the model decides. If it does not show it, the values of the first batch
            decide: probabilities of classes sum to 1 at every position, and logits lie clearly outside of [0, 1].
            If they do not decide either, the loss that the model was compiled with does. Otherwise an error asks
            for this argument.
        calibration: A `Calibration` that `calibrate` fitted for this model. It sets the number of samples, the
            sites that drop, their rates, and the temperature of each sample, and adds the answers that its
            guarantees are about, such as `set` and `defer`; see `Calibration.apply`.

    Call arguments:
        images: One batch of the inputs, as Keras takes them: an array, or for several inputs a list in order or a
            dict by name.
        seed: Int in [0, 2**32), which replaces the object's seed for this call.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`. With `return_samples` also `samples`,
        `(batch, T, ..., classes)`. With `num_samples="auto"` also `num_samples`, int32 `(batch,)`. For several
        outputs, a dict of such dicts by name: `out["prob"]["mean"]`. The names are the keys of the model's
        outputs, or else `model.output_names`.

    Raises:
        ValueError: If an argument is bad, the model draws nothing at random, a pattern matches no site, an output
            does not fit its task, it is not known whether an output is logits, or the inputs do not fit the model.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> mc = serving.MonteCarlo(model, num_samples=8)
    >>> out = mc(np.zeros((2, 28, 28, 1), "float32"))
    >>> out["mean"].shape, out["mutual_information"].shape
    (TensorShape([2, 10]), TensorShape([2]))
    >>> mc.cut().frontier
    ('dense1',)

    Reference:
        Gal and Ghahramani, "Dropout as a Bayesian Approximation", 2016, arXiv:1506.02142; mutual information:
        Houlsby et al., 2011, arXiv:1112.5745; stratification: McKay, Beckman and Conover, 1979.
    """

    def __init__(
        self,
        model: keras.Model,
        num_samples: int | str = _SAMPLES,
        sampling: str = "balanced",
        sites: dict[str, float | bool] | None = None,
        seed: int = 0,
        *,
        cache: bool = True,
        fold: int | str = "auto",
        memory_budget: int = 1 << 25,
        tolerance: float | dict[str, float] | None = None,
        max_samples: int | None = None,
        return_samples: bool = False,
        task: Tasks = None,
        from_logits: Said = None,
        calibration: Calibration | None = None,
    ) -> None:
        if calibration is not None:
            num_samples, sampling, sites = sampling_of(calibration, num_samples, sites, _SAMPLES)
        elif sites is not None and not sites:
            raise ValueError("`sites` must name at least one site, or be None for all of them. Received: sites={}")
        self.calibration = calibration
        self.num_samples, self.auto = num_samples, num_samples == "auto"
        if self.auto:
            self.max_samples = check_count(128 if max_samples is None else max_samples, "max_samples")
        else:
            self.max_samples = count_or_auto(num_samples, "num_samples")
        self.fold = fold if fold == "auto" else count_or_auto(fold, "fold")
        self.memory_budget = check_count(memory_budget, "memory_budget")
        if sampling not in _SAMPLINGS:
            raise unknown("sampling", sampling, _SAMPLINGS)
        self.sampling = sampling
        self.tolerance = check_auto(num_samples, tolerance, max_samples, return_samples)
        self.reader = Reader(model, task, from_logits)
        self.model, self.from_logits = model, from_logits
        self.task: Any = task
        self.seed = seed
        self.return_samples = return_samples
        self._group_size = min(_GROUP, self.max_samples) if self.auto else self.max_samples
        self._balanced = sampling == "balanced"
        self.sites, self._cache = sites, cache
        self._traced = self._is_open = False
        if self.reader.known:  # a subclassed model is known on the first batch
            self._open()

    @property
    def seed(self) -> int:
        """The seed of the masks, an int in [0, 2**32). Setting it traces nothing again."""
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._seed = check_seed(value)

    def __call__(self, images: InputsLike, seed: int | None = None) -> Any:
        given = self.reader.check(images)
        checked = filled(given)
        chosen = self.seed if seed is None else check_seed(seed)
        seed_tensor = tf.constant(chosen, tf.int64)
        if not self._traced:  # only tracing needs the lock: traced calls of many threads run side by side
            with TRACING:
                if not self._is_open:
                    self._open()
                self._run.get_concrete_function(checked, seed_tensor)
            self._traced = True
        with self._stage.unchanged(chosen):
            return emptied(self._run(checked, seed_tensor), given)

    def cut(self, size: tuple[int, ...] | None = None) -> Cut:
        """Returns where the model is cut for sampling, and how much the cut saves.

        Args:
            size: `(height, width)` of the images, for a model that takes any size; 256 x 256 by default.

        Returns:
            A `Cut`. Printing it gives a summary.

        Raises:
            ValueError: If `size` does not fit the model, or a subclassed model has not been sampled yet.
        """
        if not self._is_open:
            raise ValueError("A subclassed model shows its inputs in the first call: sample one batch, then cut")
        shapes = fill_shapes(self.reader.inputs, size)
        return make_cut(self._stage.trunk, shapes, self.max_samples, self._stage.plain)

    @property
    def stage(self) -> Stage:
        """The model made ready for sampling; a subclassed model must have been sampled before."""
        return self._stage

    @property
    def plain_passes(self) -> str | None:
        """The layers that are sampled by plain passes, with reasons; None if the sampler draws all masks."""
        if not self._is_open or not self._stage.plain:
            return None
        return "; ".join(f"{name}: {why}" for name, why in self._stage.plain)

    def plan(self, size: tuple[int, ...] | None = None) -> Cut:
        """Returns `cut(size)`; this is an alias of `cut`."""
        return self.cut(size)

    def sample(self, images: InputsLike, seed: tf.Tensor, plain: bool = False) -> Any:
        """Returns the same statistics as a call, for use inside a graph.

        Args:
            images: Tensors of one batch, as Keras takes them.
            seed: Int64 scalar tensor, in [0, 2**32).
            plain: Bool, whether to leave out operations that only XLA can run.

        Raises:
            ValueError: If a dropout layer draws one mask for the whole batch, and `fold` is an int above 1; or if
                it is not known whether an output is logits.
        """
        if not self._is_open:
            raise ValueError(
                "A subclassed model shows its inputs in the first call: sample one batch eagerly first"
            )
        flat = self.reader.inputs.check(images)
        return self._statistics(flat, seed, plain)

    def draw(self, stream: str, rows: tf.Tensor, sample: tf.Tensor) -> Draw:
        """Returns the draws of one stream with this object's seed, without operations that only XLA can run.

        Args:
            stream: Str, the name of the stream.
            rows: uint32 tensor, the keys of the rows.
            sample: Int32 tensor, the number of the sample; a scalar, or `(rows, 1)`.
        """
        return self._draw(stream, tf.constant(self.seed, tf.int64), rows, sample, True)

    def attribute(self, images: InputsLike) -> Attribution:
        """Returns how much of the variance and of the mutual information comes from each active site.

        All masks are drawn twice. Each site in turn takes its masks from the second draw, while the other sites
        keep those of the first. This takes `sites + 2` times the samples. With 100 samples or more, an average
        over several images is exact to about 0.02.

        Args:
            images: The inputs, as Keras takes them.

        Returns:
            An `Attribution`. Printing it gives a table.

        Raises:
            ValueError: If the model has several outputs, is sampled by plain passes, or the number of samples is
                `"auto"`.
        """
        flat = self.reader.check(images)
        with TRACING:
            if not self._is_open:
                self._open()
        if self.auto or self._stage.plain or len(self.reader.outputs) > 1:
            names = ", ".join(self.reader.names)
            raise ValueError(
                "Attribution needs a fixed number of samples, one output, and dropout whose masks the sampler "
                f"draws. Received: num_samples={self.num_samples!r}, outputs: {names}, plain passes: "
                f"{self.plain_passes}"
            )
        return attribution_of(self, self._stage, flat)

    def _open(self) -> None:
        """Makes the model ready for sampling, once its inputs and outputs are known."""
        self.task = self.reader.task if self.task is None else self.task
        self._tolerances = by_output(self.tolerance, self.reader.names, "tolerance", 0.01)
        self._stage = Stage(self.reader, self.sites, self._cache)
        self._active = self._stage.active
        if self.fold not in ("auto", 1) and (why := self._stage.why_not_folded):
            raise ValueError(f"{why}; pass fold=1. Received: fold={self.fold!r}")
        self._stage.warn(self.sampling)
        if self.calibration is not None:
            drops = self.sampling if self.sites else None
            check_calibration(self.calibration, [self.reader], self.max_samples, drops)
        self._run = self.reader.traced(self._statistics, tf.TensorSpec([], tf.int64))
        self._is_open = True

    def _statistics(self, flat: list[tf.Tensor], seed: tf.Tensor, plain: bool = False) -> Any:
        try:
            return self._sample(flat, seed, plain, self._at_once(flat))
        except SharedMaskError:
            if self.fold != "auto":
                raise ValueError(
                    "A dropout layer draws one mask for the whole batch, in which samples cannot differ; "
                    f"pass fold=1. Received: fold={self.fold!r}"
                ) from None
            return self._sample(flat, seed, plain, 1)

    def _sample(self, flat: list[tf.Tensor], seed: tf.Tensor, plain: bool, at_once: int | tf.Tensor) -> Any:
        batch, outputs, stage = tf.shape(flat[0])[0], self.reader.outputs, self._stage
        fixed = self.sampling == "fixed"
        rows = tf.zeros([batch], tf.uint32) if fixed else keys_of(flat, plain)
        states = stage.states.read()
        frontier = stage.trunk.run_trunk(flat)

        def samples(group: int | tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> list[tf.Tensor]:
            """Probabilities of the samples of a group from `start` to `stop`, (samples, batch, ..., classes)."""
            if isinstance(at_once, int) and at_once == 1:
                count, keys, inputs, t = 1, rows, frontier, start
            else:
                count = stop - start
                keys, inputs = tf.tile(rows, [count]), [tile(x, count) for x in frontier]
                t = tf.repeat(tf.range(start, stop), batch)[:, None]  # (samples * batch, 1)
            if not self._balanced:  # one sequence over all groups
                t, group = t + group * self._group_size, 0
            stage.states.write(states)
            raw = stage.run_head(
                inputs,
                lambda stream: self._draw(stream, seed, stage.rows_of(stream, keys), t, plain, group),
                seed,
                group,
                t,
            )
            return [unfold(p, count, batch) for p in tempered(self.reader.read(raw), self.calibration)]

        def sums_of(group: int | tf.Tensor) -> tuple[list[Sums], list[tf.Tensor]]:
            return sum_samples(partial(samples, group), self._group_size, at_once, outputs, self.return_samples)

        more: list[dict[str, tf.Tensor]] = [{} for _ in outputs]
        count: int | tf.Tensor = self._group_size
        if self.auto:
            groups = self.max_samples // self._group_size
            sums, count = sum_until(
                lambda g: sums_of(g)[0], self._group_size, groups, self._tolerances, batch, outputs, self._balanced
            )
            more = [{"num_samples": count} for _ in outputs]
        else:
            sums, kept = sums_of(0)
            for each, samples_kept in zip(more, kept, strict=False):
                each["samples"] = tf.experimental.numpy.moveaxis(
                    samples_kept, 0, 1
                )  # (batch, samples, ..., classes)
        stage.states.write(states)
        found = [s.statistics(count, output) | m for s, output, m in zip(sums, outputs, more, strict=True)]
        return answered(joined(found, self.reader.names), self.calibration)

    def _at_once(self, flat: Sequence[tf.Tensor]) -> int | tf.Tensor:
        """How many samples to compute at a time: an int, or a tensor if it depends on the images."""
        if isinstance(self.fold, int):
            return min(self.fold, self._group_size)
        if self._group_size == 1 or self._stage.why_not_folded:
            return 1
        shapes, costs = self._stage.costs
        if costs is None:
            return 1
        largest = max(range(len(flat)), key=lambda i: math.prod(shapes[i]))
        size = tf.size(flat[largest], tf.int64)
        each = size * max(costs.head_bytes, 1) // math.prod(shapes[largest])  # bytes in one sample
        fitting = tf.clip_by_value(self.memory_budget // tf.maximum(each, 1), 1, self._group_size)
        chunks = -(-self._group_size // fitting)  # rounded up, here and below
        return tf.cast(-(-self._group_size // chunks), tf.int32)  # so that all chunks have about the same size

    def _draw(
        self,
        stream: str,
        seed: tf.Tensor,
        rows: tf.Tensor,
        t: tf.Tensor,
        plain: bool,
        group: int | tf.Tensor = 0,
    ) -> Draw:
        """The draws of one stream in sample `t`, an int scalar, or `(rows, 1)` if each row has its own sample."""
        return SampleDraw(stream, seed, group, rows, t, self._group_size, self._balanced, plain)
