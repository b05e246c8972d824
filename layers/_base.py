"""What the layers that drop at a rate share: the live rate, the seed, validation and config."""

import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from dropzoo.common.checks import check_rate
from dropzoo.layers.draws.plain import Draw, OwnDraw


class _LiveRate:
    """Holds the rate as a variable that a traced function reads, and that Keras does not count as a weight.

    Keras tracks the variables that are attributes of a layer; this one is an attribute of an object that Keras
    does not look into. So weights files, `get_weights()` and `count_params()` know nothing of rates.
    """

    def __init__(self, value: float) -> None:
        self.given = value
        self.variable = keras.Variable(  # of a function: Keras makes it later where variables cannot be made now
            lambda shape, dtype: ops.convert_to_tensor(value, dtype=dtype),
            shape=(),
            dtype="float32",
            trainable=False,
            autocast=False,
            name="rate",
        )

    def assign(self, value: float) -> None:
        self.given = value
        self.variable.assign(value)

    def read(self) -> float:
        """The number as it was given, 0.3 and not 0.30000001, unless somebody assigned to the variable."""
        try:
            value = np.float32(ops.convert_to_numpy(self.variable))
        except (NotImplementedError, TypeError):  # while a function is traced, variables have no number
            return self.given
        return self.given if np.float32(self.given) == value else float(str(value))


class Stochastic:
    """What all layers share that draw at a rate: a mixin, before the Keras layer it is mixed into.

    `rate` can be set at any time. On the TensorFlow backend the new value acts at once, in traced functions and
    in a running `fit` too; on other backends it acts in eager calls and in functions traced after the change, and
    setting it warns once the layer has dropped.

    A subclass calls `_start(rate, seed)` at the end of its `__init__`, and defines `drop` and its own inference.
    """

    name: str
    _has_dropped = False

    def _start(self, rate: float, seed: int | None) -> None:
        self._live_rate = _LiveRate(check_rate(rate))
        self._start_draws(seed)

    def _start_draws(self, seed: int | None) -> None:
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._draw = OwnDraw(self.seed_generator)

    @property
    def rate(self) -> float:
        return self._live_rate.read()

    @rate.setter
    def rate(self, value: float) -> None:
        if self._has_dropped and keras.backend.backend() != "tensorflow":
            warnings.warn(
                f"The rate of {self.name!r} is not live on the {keras.backend.backend()} backend: functions that "
                "were compiled before keep the old one. Compile the model again for it to act there.",
                stacklevel=2,
            )
        self._live_rate.assign(check_rate(value))

    def live_rate(self) -> Any:
        """The rate as the variable that traced functions read, a float32 scalar."""
        return self._live_rate.variable.value

    def drop(self, inputs: Any, rate: Any, draw: Draw) -> Any:
        """The layer's formula, free of state: `inputs` with the fraction `rate` of them dropped.

        Args:
            inputs: a floating point tensor.
            rate: a float32 scalar tensor in [0, 1).
            draw: where the random bits come from, so that the layer's own seed is one source among others.
        """
        raise NotImplementedError

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return self.infer(inputs)
        if not keras.backend.is_float_dtype(inputs.dtype):
            raise ValueError(
                "`inputs` must be floating point, as what is kept is scaled. "
                f"Received: inputs of {keras.backend.standardize_dtype(inputs.dtype)}"
            )
        self._has_dropped = True
        # Read once, here: a gradient would read the variable again, at its rate by then.
        return self.drop(inputs, ops.copy(self.live_rate()), self._draw)

    def infer(self, inputs: Any) -> Any:
        """What the layer does when it does not drop."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}  # type: ignore[misc]


class BaseDropout(Stochastic, keras.Layer):
    """Base of the site layers: weightless, any shape with a batch in and the same out, the identity in inference.

    A subclass is its `drop` and its docstring.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._start(rate, seed)
        self.supports_masking = True
        self.input_spec = keras.InputSpec(min_ndim=1)  # the first axis is the batch

    def infer(self, inputs: Any) -> Any:
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape
