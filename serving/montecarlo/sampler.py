"""Monte-Carlo dropout: predictions with the dropout left on, averaged, with their uncertainty."""

from typing import Any

import keras
import tensorflow as tf

from dropzoo.common.checks import check_count, check_seed, unknown
from dropzoo.layers.draws import Draw
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.montecarlo.active import TRACING
from dropzoo.serving.montecarlo.attribution import Attribution, attribution_of
from dropzoo.serving.montecarlo.calibrated import check_calibration, sampling_of
from dropzoo.serving.montecarlo.counts import check_auto, count_or_auto
from dropzoo.serving.montecarlo.cut import Cut, fill_shapes, make_cut
from dropzoo.serving.montecarlo.inputs import InputsLike, emptied, filled, of_any_rows
from dropzoo.serving.montecarlo.outputs import by_output
from dropzoo.serving.montecarlo.reader import Reader, Said, Tasks
from dropzoo.serving.montecarlo.samples import SampleGraph, Wanted
from dropzoo.serving.montecarlo.stage import Stage

_SAMPLINGS = ("balanced", "independent", "fixed")
_SAMPLES = 30


class MonteCarlo:
    """Monte-Carlo dropout: samples a model with its dropout on, and returns the mean and the uncertainty.

    The spread of the samples (mutual information) shows where a model is unsure because it has not seen enough
    data. It does not show where the classes themselves overlap. Layers that draw random numbers, except image
    augmentation, are in training mode. All other layers, such as BatchNorm, run in inference mode, and the state
    of the model, including its seeds, does not change.

    Every layer in training mode is sampled. The sampler itself draws the masks of the dropout layers of this
    package and of Keras. Any other layer that draws random numbers is sampled by plain passes: it runs in training
    mode once for each sample, while batch normalisation and image augmentation inside it stay in inference mode.
    Examples are dropout inside recurrent layers, a custom drop path, and `tf.nn.dropout` in a lambda. The masks of
    such a layer depend on the place in the batch and not on the image, so `sampling` has no effect on them, and
    samples are not folded into larger batches. If a layer draws without a Keras seed generator, its draws differ
    from call to call, and a warning names it. `cut()` lists the layers that are sampled by plain passes, with the
    reasons.

    Let `p_t` be the probabilities of sample `t` of T. Then
    `mean = avg p_t`, `variance = avg p_t**2 - mean**2` (the divisor is T and not T - 1, since balanced samples are
    not independent), `predictive_entropy = H(mean)` and `mutual_information = H(mean) - avg H(p_t)`, in nats. For
    a single logit, `p_t` is its sigmoid, and the entropies are those of two classes. See `task` for other outputs.

    Each sample starts from the current states of the model's stateful layers, as a single pass would.

    Layers that do not depend on active dropout are computed once instead of T times; `cut()` returns how much this
    saves. Several small samples are computed at the same time. Neither of these optimisations changes the masks;
    both change the statistics only by rounding.

    Args:
        model: A Keras model with layers that draw random numbers. It may have several inputs and outputs of any
            dtype. It may also be a subclassed model, whose inputs and outputs become known in the first call.
            Outputs are logits, probabilities or values: see `task` and `from_logits`.
        num_samples: Positive int, the number T of samples, or `"auto"` for as many samples as each image needs
            (see `tolerance`).
        sampling: `"balanced"`: each unit's draws are stratified over the T samples. Each sample has the same
            distribution as an independent one, and the mean has a smaller error. `"independent"`: independent
            masks. `"fixed"`: T independent masks that are the same for all images, so that tiles and video frames
            agree. Unless this is `"fixed"`, the masks of an image depend on the seed and on the content of its
            inputs.
        sites: Dict that selects the dropout layers that are on; None for all. The keys are names or patterns of
            sites, as in `models.list_sites`. The values are True, for the layer's live rate, or another rate in
            [0, 1).
        seed: Int in [0, 2**32). You can set `mc.seed` later, or pass a seed to a call, without retracing the
            model.
        cache: Bool, whether layers that do not depend on active dropout are computed only once.
        fold: Positive int, how many samples are folded into one larger batch and computed at the same time, or
            `"auto"` for as many as `memory_budget` allows.
        memory_budget: Positive int, bytes of activations that `fold="auto"` may use; a single sample may need
            more. On a CPU, budgets well above 32 MiB are slower, because activations no longer fit in the cache.
        tolerance: Float of at least 0, for `num_samples="auto"`. An image has enough samples when the standard
            error of its mean, as a root mean square over classes and pixels, is at most `tolerance`. For
            regression, `tolerance` is in the unit of the output. A dict gives it for each output by name. Defaults
            to 0.01.
        max_samples: Positive int, the largest number of samples for `num_samples="auto"`. Samples are taken in
            groups of 8, so a number above 8 is rounded down to a multiple of 8. Defaults to 128.
        return_samples: Bool, whether to return the probabilities of each sample too.
        task: Str or None, the output kind. `"multi_class"`: logits of classes that exclude each other, or one
            logit as for `"binary"`. `"binary"`: one logit for the second of two classes. `"multi_label"`: one
            logit for each label; several labels may be true at the same time, and the entropies are summed over
            the labels. `"regression"`: values; there are no entropies. For several outputs, a dict by name or a
            list in order; a single string is for all outputs. By default, the loss of a compiled model shows
            whether an output is a regression or multi-label; any other output is `"multi_class"`. If the loss does
            not show what the output means, as with a hinge, an error asks for this argument. An output that ends
            in a softmax or a sigmoid is not taken for a regression, whatever its loss.
        from_logits: Bool or None, whether the output is logits; for several outputs also a dict by name or a list
            in order. By default, the graph of the model decides. If the graph does not show it, the values of the
            first batch decide: probabilities of classes sum to 1 at every position, and logits lie clearly outside
            [0, 1]. If the values could be either, the loss of a compiled model decides. Otherwise, an error asks
            for this argument.
        calibration: A `Calibration` that `calibrate` fitted for this model. It sets the number of samples, the
            sampling, the sites that drop, their rates, and the temperature of each sample, and adds the answers of
            its guarantees, such as `set` and `defer`; see `Calibration.apply`.

    Call arguments:
        images: One batch of the inputs, as Keras takes them: an array, or for several inputs a list in order or a
            dict by name.
        seed: Int in [0, 2**32), which replaces the object's seed for this call.

    Returns:
        A dict of float32 tensors: `mean` and `variance`, `(batch, ..., classes)`; except for regression also
        `predictive_entropy` and `mutual_information`, `(batch, ...)`. With `return_samples` also `samples`,
        `(batch, T, ..., classes)`. With `num_samples="auto"` also `num_samples`, int32 `(batch,)`. For several
        outputs, a dict of such dicts by name: `out["prob"]["mean"]`. The names are the keys of the model's outputs
        if these are a dict, otherwise `model.output_names`.

    Raises:
        ValueError: If an argument is invalid, the model has no random layer, a pattern matches no site, an output
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
            defaults = (_SAMPLES, _SAMPLINGS[0])
            num_samples, sampling, sites = sampling_of(calibration, num_samples, sampling, sites, defaults)
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
        self.sites, self._cache = sites, cache
        self._traced = self._is_open = False
        if self.reader.known:  # a subclassed model is known on the first batch
            self._open()

    @property
    def seed(self) -> int:
        """The seed of the masks, an int in [0, 2**32). You can set it without retracing the model."""
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
            raise ValueError(
                "The inputs of a subclassed model are not known before its first call: sample one batch first"
            )
        shapes = fill_shapes(self.reader.inputs, size)
        return make_cut(self._stage.trunk, shapes, self.max_samples, self._stage.plain)

    @property
    def stage(self) -> Stage:
        """The model prepared for sampling. A subclassed model must have been sampled once before."""
        return self._stage

    @property
    def graph(self) -> SampleGraph:
        """The samples of a batch, for use inside a graph. A subclassed model must have seen a batch before."""
        with TRACING:
            if not self._is_open:
                self._open()
        return self._graph

    @property
    def plain_passes(self) -> str | None:
        """The layers that are sampled by plain passes, with reasons; None if there are none.

        Those of a subclassed model are known after its first batch.
        """
        if not self._is_open or not self._stage.plain:
            return None
        return "; ".join(f"{name}: {why}" for name, why in self._stage.plain)

    @property
    def side_by_side(self) -> bool:
        """Whether calls change no variable, not even briefly, so that several threads may call at the same time.

        For a subclassed model, or one that does not show whether it returns logits, it is False until the first
        batch.
        """
        return self._is_open and self.reader.settled and self._stage.keeps_nothing

    def plan(self, size: tuple[int, ...] | None = None) -> Cut:
        """Returns `cut(size)`; this is an alias of `cut`."""
        return self.cut(size)

    def sample(self, images: InputsLike, seed: tf.Tensor, plain: bool = False) -> Any:
        """Returns the same statistics as a call, for use inside a graph.

        Args:
            images: Tensors of one batch, as Keras takes them.
            seed: Int64 scalar tensor, in [0, 2**32).
            plain: Bool, whether to use only operations that run without XLA. It has nothing to do with plain
                passes.

        Raises:
            ValueError: If a dropout layer draws one mask for the whole batch, and `fold` is an int above 1; if it
                is not known whether an output is logits; or if a subclassed model has not been sampled yet.
        """
        if not self._is_open:
            raise ValueError(
                "The inputs of a subclassed model are not known before its first call: sample one batch eagerly "
                "first"
            )
        return self._graph.statistics(of_any_rows(self.reader.inputs.check(images)), seed, plain)

    def draw(self, stream: str, rows: tf.Tensor, sample: tf.Tensor) -> Draw:
        """Returns the source of the random numbers of one stream, for this object's seed. It needs no XLA.

        Args:
            stream: Str, the name of a stream. Each dropout layer draws from a stream of its own.
            rows: uint32 tensor `(batch,)`, a key for each image, which is computed from its content; 0 with fixed
                masks.
            sample: Int32 tensor, the number of the sample; a scalar, or `(batch, 1)`.
        """
        return self._graph.draw(stream, tf.constant(self.seed, tf.int64), rows, sample, True)

    def attribute(self, images: InputsLike) -> Attribution:
        """Returns how much of the variance and of the mutual information comes from each active site.

        All masks are drawn twice. Then each site in turn uses its masks from the second draw, while the other
        sites use those from the first. This takes `sites + 2` times as many samples as a call. The shares of one
        image are accurate to about 0.02 with 2,000 samples; their mean over several images needs fewer.

        Args:
            images: The inputs, as Keras takes them.

        Returns:
            An `Attribution`. Printing it gives a table.

        Raises:
            ValueError: If the model has several outputs, is sampled by plain passes, or the number of samples is
                `"auto"`.

        Example:
        >>> import numpy as np
        >>> from dropzoo import models, serving
        >>> plan = {"module1": 0.2, "dense1": 0.5}
        >>> model = models.build_model("simple_cnn", input_shape=(8, 8, 1), filters=(4,), dropout=plan)
        >>> shares = serving.MonteCarlo(model, num_samples=8).attribute(np.ones((2, 8, 8, 1), "float32"))
        >>> shares.sites, shares.total.shape
        (('module1', 'dense1'), (2,))
        """
        flat, graph = self.reader.check(images), self.graph
        if self.auto or self._stage.plain or len(self.reader.outputs) > 1:
            names = ", ".join(self.reader.names)
            raise ValueError(
                "Attribution needs a fixed number of samples, one output, and dropout only in layers of dropzoo "
                f"or Keras (no plain passes). Received: num_samples={self.num_samples!r}, outputs: {names}, plain "
                f"passes: {self.plain_passes}"
            )
        return attribution_of(graph, self.seed, flat)

    def _open(self) -> None:
        """Makes the model ready for sampling, once its inputs and outputs are known."""
        self.task = self.reader.task if self.task is None else self.task
        if self.calibration is not None:  # before its sites are looked for, which another model does not have
            drops = self.sampling if self.sites else None
            check_calibration(self.calibration, [self.reader], self.max_samples, drops)
        self._stage = Stage(self.reader, self.sites, self._cache)
        if self.fold not in ("auto", 1) and (why := self._stage.why_not_folded):
            raise ValueError(f"{why}; pass fold=1. Received: fold={self.fold!r}")
        self._stage.warn(self.sampling)
        wanted = Wanted(
            count=self.max_samples,
            auto=self.auto,
            sampling=self.sampling,
            tolerances=by_output(self.tolerance, self.reader.names, "tolerance", 0.01),
            keep=self.return_samples,
            fold=self.fold,
            memory_budget=self.memory_budget,
        )
        self._graph = SampleGraph(self.reader, self._stage, wanted, self.calibration)
        self._run = self.reader.traced(self._graph.statistics, tf.TensorSpec([], tf.int64))
        self._is_open = True
