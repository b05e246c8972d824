"""LeNet-5."""

import numbers

import keras

from dropzoo.models.registry import register_model
from dropzoo.models.simple_cnn import simple_cnn
from dropzoo.models.sites import DropoutPlan


@register_model
def lenet5(
    input_shape: tuple[int | None, int | None, int] = (28, 28, 1),
    num_classes: int = 10,
    *,
    dropout: DropoutPlan = None,
    filters: tuple[int, ...] = (6, 16),
    dense: int | tuple[int, ...] = (120, 84),
    head: str = "flatten",
    normalization: str | None = None,
    activation: str = "tanh",
    weight_decay: float = 0.0,
    name: str = "lenet5",
) -> keras.Model:
    """LeNet-5: two convolutions of 5x5 with average pooling, and two dense layers.

    Sites: those of `simple_cnn`, of which this is a special case. Plan `"paper"`: 0.5 after the dense layers, as
    in the paper that introduced dropout (Hinton et al. 2012, arXiv:1207.0580), because LeCun et al. used no
    dropout.

    Differs from the paper: images are 28x28 and padded by the first convolution, instead of 32x32; the second
    convolution sees all maps, pooling has no weights, and the last layer is dense.

    Args:
        input_shape: `(height, width, channels)`.
        num_classes: Positive int, number of logits; 1 for a single logit.
        dropout: The plan, see `build_model`.
        filters: Tuple of positive ints, channels of each convolution.
        dense: Positive int, or a tuple of them, units of the dense layers.
        head: `"flatten"`, `"average_pool"` or `"max_pool"` (global).
        normalization: `"batch"`, `"group"`, `"layer"` or None.
        activation: Name of a Keras activation.
        weight_decay: Float of at least 0, the L2 penalty on the kernels.
        name: Name of the model.

    Output shape:
        `(batch, num_classes)`, float32 logits.

    Raises:
        ValueError: For an option outside its range, or a plan that does not fit the model (see `build_model`).

    Reference:
        LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE, 1998.
    """
    # The plan "paper" of `simple_cnn` has other sites, so that of LeNet is made a plan with a pattern here.
    is_rate = isinstance(dropout, numbers.Real) and not isinstance(dropout, bool)
    if dropout == "paper" or is_rate:
        dropout = {"dense*": dropout if is_rate else 0.5}
    return simple_cnn(
        input_shape,
        num_classes,
        dropout=dropout,
        filters=filters,
        kernel_size=5,
        padding=("same", *("valid",) * (len(filters) - 1)) if head == "flatten" else "same",
        downsample="average_pool",
        dense=dense,
        head=head,
        normalization=normalization,
        activation=activation,
        weight_decay=weight_decay,
        name=name,
    )
