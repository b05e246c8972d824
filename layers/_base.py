"""Base classes: `Stochastic` draws random numbers, `LiveRate` drops at a rate, `BaseDropout` is for sites."""

from typing import Any

import keras
import numpy as np
from keras import ops

from dropzoo.common.checks import check_rate
from dropzoo.common.keras_internals import hand_to_steps, is_in_step
from dropzoo.layers.draws import Draw, Tensor, own_draw


class Stochastic(keras.Layer):
    """Base of all layers that draw random numbers: it holds the seed and distinguishes training from inference.

    A subclass defines `sample` for training and `infer` for inference. To replace a Keras layer, name this class
    (or `LiveRate`) as the first base class, and the class of the Keras layer as the second.

    Args:
        args: Positional arguments of the next base class.
        seed: Int or None. The seed of the draws; None takes one from Keras' global seed.
        kwargs: Keyword arguments of the next base class.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._draw = own_draw(self.seed_generator)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not training:
            return self.infer(inputs)
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be floating point in training. Cast them first. "
                f"Received: inputs of {keras.backend.standardize_dtype(inputs.dtype)}"
            )
        return self.sample(inputs, self._draw)

    def sample(self, inputs: Tensor, draw: Draw) -> Tensor:
        """Returns the layer's output in training, or in one Monte-Carlo sample.

        Args:
            inputs: Floating point tensor.
            draw: Source of the random draws: the layer's own seed generator in training, another source in
                Monte-Carlo samples.

        Returns:
            A tensor of the layer's output shape.
        """
        raise NotImplementedError

    def infer(self, inputs: Tensor) -> Tensor:
        """Returns the layer's output in inference.

        Args:
            inputs: Tensor.

        Returns:
            A tensor of the layer's output shape.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


class LiveRate(Stochastic):
    """Base of the layers whose dropout rate can be changed at any time.

    A new `rate` takes effect at once, even in traced functions and while `fit` is running. On JAX, only a callback
    can set rates while `fit` is running, and only on layers of its `self.model`. If you compile a function with
    `jax.jit`, pass the model's `non_trainable_variables` to it; otherwise it keeps the rate at which it was
    traced. The rate is not a weight: weights files, `get_weights()` and `count_params()` do not include it.

    A subclass defines `drop` for training and `infer` for inference.

    Args:
        args: Positional arguments of the next base class.
        rate: Float in [0, 1). Fraction to drop.
        seed: Int or None. The seed of the draws; None takes one from Keras' global seed.
        kwargs: Keyword arguments of the next base class.

    Raises:
        ValueError: If `rate` is not a number in [0, 1).

    Example:
    >>> from dropzoo import layers
    >>> layer = layers.Dropout(0.5)
    >>> layer.rate = 0.2
    >>> layer.rate
    0.2
    """

    def __init__(self, *args: Any, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        rate = check_rate(rate)
        super().__init__(*args, seed=seed, **kwargs)
        self._live_rate = _RateVariable(rate)
        if keras.backend.backend() == "jax":
            hand_to_steps(self, self._live_rate)

    @property
    def rate(self) -> float:
        """The fraction to drop, a float in [0, 1)."""
        return self._live_rate.read()

    @rate.setter
    def rate(self, value: float) -> None:
        if is_in_step(self._live_rate.variable):
            raise RuntimeError(
                f"On JAX, while `fit` is running, the rate of {self.name!r} can only be set in a callback, on the "
                "layer that `self.model.get_layer` returns. You can also use training.RateSchedule."
            )
        self._live_rate.assign(check_rate(value))

    def live_rate(self) -> Tensor:
        """Returns the rate as the variable that traced functions read, a float32 scalar."""
        return self._live_rate.variable.value

    def sample(self, inputs: Tensor, draw: Draw) -> Tensor:
        # A copy: a gradient would read the variable again, and its value may have changed by then.
        return self.drop(inputs, ops.copy(self.live_rate()), draw)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        """Returns `inputs` with the fraction `rate` dropped. An implementation must not use any state.

        Args:
            inputs: Floating point tensor.
            rate: Float32 scalar in [0, 1).
            draw: Source of the random draws.

        Returns:
            A tensor of the layer's output shape.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


class BaseDropout(LiveRate):
    """Base of the site layers: the layers that a plan can put at the sites of a model.

    A site layer has no weights and keeps the shape of its inputs. The inputs can have any shape with a batch axis,
    unless the subclass needs a certain number of axes. A subclass defines `drop`, and also `infer` if the layer
    changes its inputs in inference.

    Args:
        rate: Float in [0, 1). Fraction to drop.
        seed: Int or None. The seed of the draws; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`.

    Raises:
        ValueError: If `rate` is not a number in [0, 1).

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> class MyDropout(layers.BaseDropout):
    ...     def drop(self, inputs, rate, draw):
    ...         return draw.drop_units(inputs, keras.ops.shape(inputs), rate)
    >>> y = MyDropout(0.5, seed=0)(keras.ops.ones((2, 3)), training=True)
    >>> sorted(set(keras.ops.convert_to_numpy(y).ravel().tolist()))
    [0.0, 2.0]
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate=rate, seed=seed, **kwargs)
        self.supports_masking = True
        self.input_spec = keras.InputSpec(min_ndim=1)  # the first axis is the batch

    def infer(self, inputs: Tensor) -> Tensor:
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class _RateVariable:
    """A rate as a variable that a traced function reads and Keras does not count as a weight.

    Keras tracks the variables that are attributes of a layer, but does not look into an object like this one.
    """

    def __init__(self, value: float) -> None:
        self.given = value
        self.variable = (
            keras.Variable(  # from a function, so that Keras can create it later if it cannot create it now
                lambda shape, dtype: ops.convert_to_tensor(value, dtype=dtype),
                shape=(),
                dtype="float32",
                trainable=False,
                autocast=False,
                name="rate",
            )
        )

    @property
    def state(self) -> keras.Variable:
        """The variable, by the name that seed generators have for theirs."""
        return self.variable

    def assign(self, value: float) -> None:
        self.given = value
        self.variable.assign(value)

    def read(self) -> float:
        """Returns the rate as it was given, 0.3 and not 0.30000001, unless the variable was assigned directly."""
        if is_in_step(self.variable):
            return self.given
        try:
            value = np.float32(ops.convert_to_numpy(self.variable))
        except (NotImplementedError, TypeError):  # a variable has no value while a function is traced
            return self.given
        return self.given if np.float32(self.given) == value else float(str(value))
