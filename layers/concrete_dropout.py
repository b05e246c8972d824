"""Dropout that learns its rate."""

import math
from typing import Any

import keras
from keras import ops

from dropzoo.common.checks import check_count, check_positive, check_rate
from dropzoo.layers._base import Stochastic
from dropzoo.layers._registry import register_layer
from dropzoo.layers.draws import Draw, Tensor


@register_layer
class ConcreteDropout(Stochastic, keras.layers.Wrapper):
    """Dropout on the inputs of a dense layer or convolution, at a rate that is learned like a weight.

    The rate adapts to the uncertainty: it is high if data are scarce or noisy, and falls as more data are added.

    In training the inputs are multiplied by `(1 - z) / (1 - rate)` with the relaxed draw
    `z = sigmoid((logit(rate) + logit(u)) / temperature)`, where `u ~ U(0, 1)`. The relaxation gives the rate a
    gradient. For convolutions, a whole feature map uses the same draw by default. In inference, the layer acts
    like the wrapped layer.

    The layer adds `(length_scale**2 / 2 * sum(kernel**2) / (1 - rate) - K * H(rate)) / data_size` to the loss,
    where `K` is the number of inputs (features or channels) and `H` is the binary entropy. Without the entropy
    term, every rate would go to zero. The loss of the model must be the negative log-likelihood (such as the
    cross-entropy), averaged over the samples.

    Unlike the other layers, this layer learns its rate: the logit of the rate is a weight. So the weights files of
    a model with this layer differ from those of a model without it, `count_params()` is larger by one, and
    `layer.rate` returns the learned rate.

    Differs from the paper: by default, convolutions draw once for each feature map. The factors of the `kernel`
    term and of the `H` term are those for a negative log-likelihood. (The authors' regression code doubles both,
    because its loss lacks the factor 1 / 2.)

    Args:
        layer: The layer to wrap, a `keras.layers.Dense` or `keras.layers.Conv2D`.
        data_size: Positive int. Number of training samples.
        rate: Float in [0, 1). Initial rate; 0 becomes 1e-6, because the logit of 0 is infinite.
        spatial: Bool or None. Whether a whole feature map uses the same draw. None means True for convolutions and
            False for dense layers, which do not take True.
        length_scale: Positive float. Length scale of the prior: a larger one means smoother functions and a
            stronger penalty on the kernel.
        temperature: Positive float. Temperature of the relaxation. At a lower temperature, the draws are closer to
            0 or 1.
        seed: Int or None. Seed of the draws; None takes one from Keras' global seed.
        kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Floating point tensor of rank 2 or more, of rank 4 for convolutions.
        training: Bool. Whether to drop; defaults to False.

    Raises:
        ValueError: If `layer` is neither a dense layer nor a 2-D convolution, or if an argument is out of its
            range.

    Input shape:
        That of the wrapped layer.

    Output shape:
        That of the wrapped layer.

    Example:
    >>> import keras
    >>> from dropzoo import layers
    >>> layer = layers.ConcreteDropout(keras.layers.Dense(4), data_size=1000, rate=0.2)
    >>> tuple(layer(keras.ops.ones((2, 3)), training=True).shape), round(layer.rate, 3), layer.count_params()
    ((2, 4), 0.2, 17)

    Reference:
        Gal, Hron and Kendall, "Concrete Dropout", 2017, arXiv:1705.07832.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        data_size: int,
        rate: float = 0.1,
        *,
        spatial: bool | None = None,
        length_scale: float = 0.01,
        temperature: float = 0.1,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)):
            raise ValueError(f"`layer` must be a keras.layers.Dense or Conv2D. Received: layer={layer!r}")
        if spatial and not isinstance(layer, keras.layers.Conv2D):
            raise ValueError(
                f"`spatial=True` is only for Conv2D: a dense layer has no feature maps. Received: layer={layer!r}"
            )
        super().__init__(layer, seed=seed, **kwargs)
        self._initial_rate = check_rate(rate)
        if isinstance(data_size, float) and float(data_size).is_integer():  # files of earlier versions have 100.0
            data_size = int(data_size)
        self.data_size = check_count(data_size, "data_size")
        self.spatial = isinstance(layer, keras.layers.Conv2D) if spatial is None else spatial
        self.length_scale = check_positive(length_scale, "length_scale")
        self.temperature = check_positive(temperature, "temperature")

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        start = keras.initializers.Constant(_logit(self._initial_rate))
        self.rate_logit = self.add_weight(shape=(), initializer=start, dtype="float32", name="rate_logit")

    @property
    def rate(self) -> float:
        """The learned rate, a float in [0, 1); the initial rate until the layer is built."""
        return float(self.live_rate()) if self.built else self._initial_rate

    @rate.setter
    def rate(self, value: float) -> None:
        self._initial_rate = check_rate(value)
        if self.built:
            self.rate_logit.assign(_logit(value))

    def live_rate(self) -> Tensor:
        """Returns the learned rate, a float32 scalar with a gradient."""
        return ops.sigmoid(ops.cast(self.rate_logit, "float32"))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        rate = self.live_rate()
        weights = (
            self.length_scale**2 / 2 * ops.sum(ops.square(ops.cast(self.layer.kernel, "float32"))) / (1 - rate)
        )
        entropy = -rate * ops.log(rate) - (1 - rate) * ops.log(1 - rate)
        self.add_loss((weights - inputs.shape[self._axis()] * entropy) / self.data_size)
        return super().call(inputs, training=training)

    def sample(self, inputs: Tensor, draw: Draw) -> Tensor:
        return self.drop(inputs, self.live_rate(), draw)

    def drop(self, inputs: Tensor, rate: Tensor, draw: Draw) -> Tensor:
        """Returns the layer's output with the fraction `rate` of its inputs dropped, without using any state.

        Args:
            inputs: Floating point tensor.
            rate: Float32 scalar in (0, 1).
            draw: Source of the random draws.
        """
        shape = list(ops.shape(inputs))
        if self.spatial:
            channels = range(len(shape))[self._axis()]
            shape = [n if axis in (0, channels) else 1 for axis, n in enumerate(shape)]
        chance = draw.uniform(shape)
        logits = ops.log(rate) - ops.log1p(-rate) + ops.log(chance) - ops.log1p(-chance)
        keep = 1.0 - ops.sigmoid(logits / self.temperature)
        return self.layer(inputs * ops.cast(keep / (1.0 - rate), inputs.dtype))

    def infer(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)

    def _axis(self) -> int:
        return 1 if getattr(self.layer, "data_format", None) == "channels_first" else -1

    def get_config(self) -> dict[str, Any]:
        names = ("rate", "data_size", "spatial", "length_scale", "temperature")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _logit(rate: float) -> float:
    rate = min(max(rate, 1e-6), 1 - 1e-6)  # so that the logit is finite
    return math.log(rate) - math.log1p(-rate)
