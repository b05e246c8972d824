"""Deep supervision: a U-Net that learns at several resolutions at once."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers as kl

from dropzoo import models
from dropzoo.common.checks import check_keras_model, did_you_mean, unknown
from dropzoo.common.keras_internals import hold_layer
from dropzoo.models.blocks.resize import CropLike
from dropzoo.models.graph.endings import output_activation

_STAGES = re.compile(r"(decoder\d+|node1_\d+)_")  # the stages of the decoders of this package's models
_SIDE = 256  # pixels, where a model takes images of any size


class DeepSupervision(keras.Model):
    """A segmentation model with a loss at the end of each stage of its decoder, for training only.

    Each stage gets a 1x1 convolution that predicts the classes, and its logits are resized to the size of the
    masks. So the gradient reaches the deep stages directly, which helps with deep networks, few images and small
    objects. With each halving of the size, the weight of the loss is halved; all weights sum to 1.

    This model uses the layers of `model`, so training it trains `model`: predict with `model` afterwards. In
    inference, both give the same outputs. `save`, `export` and the callback `ModelCheckpoint` write `model`,
    without the additional losses. Train with `fit` or with the `Trainer`. Metrics are computed on the full-size
    masks.

    Args:
        model: A Functional model with one image as input and the logits of one mask as output, such as `unet`.
        sites: The names of the sites that get a loss. None means the last site of each decoder stage (in a
            `unet_plus_plus`: of each full-size node) except the final stage. In an `fc_densenet103`, a site has
            only the maps that its layer adds, not the maps of the whole stage.
        name: Str. The name of the model; None for that of `model`.

    Raises:
        ValueError: If the model is of another kind, or has no such sites.

    Example:
    >>> from dropzoo import models, training
    >>> model = models.build_model("unet", depth=3, filters=4)
    >>> deep = training.DeepSupervision(model)
    >>> deep.sites
    ('decoder1_conv2', 'decoder2_conv2')
    >>> [round(weight, 3) for weight in deep.weights_of_losses]  # of the output, then of the sites
    [0.571, 0.143, 0.286]

    Reference:
        Lee et al., "Deeply-Supervised Nets", 2014, arXiv:1409.5185. The weights are those of nnU-Net: Isensee et
        al., 2021, arXiv:1904.08128.
    """

    def __init__(self, model: keras.Model, sites: Sequence[str] | None = None, name: str | None = None) -> None:
        check_keras_model(model)
        _check(model)
        known = [site.name for site in models.list_sites(model)]
        chosen = _stages(model, known) if sites is None else tuple(sites)
        for site in chosen:
            if site not in known:
                raise unknown("site", site, known)
        maps = [_read_from(model, site) for site in chosen]
        ratios = _ratios(model, maps, known)
        heads = [_head(*each, model.output) for each in zip(chosen, maps, ratios, strict=True)]
        super().__init__(inputs=model.input, outputs=model.output, name=name or model.name)
        self.original, self.sites = model, chosen
        self._with_heads = keras.Model(model.input, [model.output, *heads])
        hold_layer(self, self._with_heads)
        shares = [1.0, *(1.0 / ratio for ratio in ratios)]
        #: The weights of the losses: of the masks in full size, then of each site.
        self.weights_of_losses = [share / sum(shares) for share in shares]

    # Not `call`: a model whose graph runs its calls has sites by name, for rate schedules and reports.
    def __call__(self, inputs: Any, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Returns the logits; in training, a list of them and those of each site."""
        if training:
            return self._with_heads(inputs, training=True)
        return super().__call__(inputs, *args, training=training, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        """Returns the weighted sum of the losses."""
        if not isinstance(y_pred, list):
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        losses = [
            super(DeepSupervision, self).compute_loss(x, y, each, sample_weight, training) for each in y_pred
        ]
        return sum(weight * loss for weight, loss in zip(self.weights_of_losses, losses, strict=True))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates the metrics with the full-size masks, and returns the metrics."""
        logits = y_pred[0] if isinstance(y_pred, list) else y_pred
        return super().compute_metrics(x, y, logits, sample_weight)

    def save(self, *args: Any, **kwargs: Any) -> Any:
        """Saves `model` without the additional convolutions, so that files from callbacks load as usual."""
        return self.original.save(*args, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> Any:
        """Exports `model` without the additional convolutions."""
        return self.original.export(*args, **kwargs)


def _check(model: keras.Model) -> None:
    """Raises a ValueError for a model that cannot be supervised at its sites."""
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError("Deep supervision needs Keras' `train_step`, but the model has its own")
    shapes = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
    if any(not isinstance(shape, tuple) or len(shape) != 4 for shape in shapes):
        raise ValueError(
            "Deep supervision is for models of one image, (batch, height, width, channels), and one mask of "
            f"logits, such as unet. Received: a model with the input {shapes[0]} and the output {shapes[1]}"
        )
    if (ending := output_activation(model)) is not None:
        raise ValueError(
            f"Deep supervision needs logits, but the model ends in a {ending}. Leave out the {ending}, and use a "
            "loss with from_logits=True"
        )


def _stages(model: keras.Model, known: Sequence[str]) -> tuple[str, ...]:
    """Returns the last site of each stage of the decoder, except the last stage."""
    last = {found[1]: site for site in known if (found := _STAGES.match(site))}
    if len(last) < 2:
        raise ValueError(
            f"The decoder of the model {model.name!r} does not have several stages. Pass `sites=` with some of: "
            f"{', '.join(known[:12])}{' and others' if len(known) > 12 else ''}."
            f"{did_you_mean('decoder', list(known))}"
        )
    return tuple(last.values())[:-1]


def _read_from(model: keras.Model, site: str) -> keras.KerasTensor:
    """Returns the map at a site, after its dropout."""
    names = {layer.name for layer in model.layers}
    return model.get_layer(f"{site}_dropout" if f"{site}_dropout" in names else site).output


def _ratios(model: keras.Model, maps: Sequence[keras.KerasTensor], known: Sequence[str]) -> list[int]:
    """Returns how much smaller each map is than the image in the model, which may be padded."""
    _, height, width, channels = model.input_shape
    size = (1, height or _SIDE, width or _SIDE, channels)
    outputs = [layer.output for layer in model.layers if layer.name in known]  # sites may be in nested models
    others = [output for output in outputs if isinstance(output, keras.KerasTensor)]
    shapes = keras.Model(model.input, [model.output, *maps, *others]).compute_output_shape(size)
    masks = shapes[0][1]
    full = max(shape[1] for shape in shapes if len(shape) == 4)  # masks are cropped to the image, maps are not
    # A map must not become smaller than the masks, which it could where an encoder does not halve exactly.
    return [max(round(full / each[1]), -(-masks // each[1])) for each in shapes[1 : len(maps) + 1]]


def _head(site: str, x: keras.KerasTensor, ratio: int, logits: keras.KerasTensor) -> keras.KerasTensor:
    """Returns the logits at a site in the size of the masks. They begin at 0, so no random number is drawn."""
    x = kl.Conv2D(
        logits.shape[-1], 1, kernel_initializer="zeros", dtype="float32", name=f"{site}_supervised_conv"
    )(x)
    x = kl.UpSampling2D(ratio, interpolation="bilinear", dtype="float32", name=f"{site}_supervised_resize")(x)
    return CropLike(dtype="float32", name=f"{site}_supervised")([x, logits])
