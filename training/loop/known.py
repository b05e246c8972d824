"""Facts about the losses of Keras and of this package: the targets and outputs that they take."""

from typing import Any, NamedTuple

import keras

from dropzoo.common.keras_versions import setting_of_loss
from dropzoo.training.losses import SmoothedCrossEntropy
from dropzoo.training.losses.base import PixelLoss

# Keras' losses by the names of their functions and classes, in snake case without "_".
_KINDS = {
    "binarycrossentropy": ("labels", False),
    "binaryfocalcrossentropy": ("labels", False),
    "categoricalcrossentropy": ("multi_class", True),
    "categoricalfocalcrossentropy": ("multi_class", True),
    "sparsecategoricalcrossentropy": ("multi_class", False),
    "meansquarederror": ("regression", False),
    "meanabsoluteerror": ("regression", False),
    "meanabsolutepercentageerror": ("regression", False),
    "meansquaredlogarithmicerror": ("regression", False),
    "huber": ("regression", False),
    "logcosh": ("regression", False),
}


class Known(NamedTuple):
    """Facts about a loss.

    Attributes:
        kind: `"multi_class"`, `"binary"`, `"multi_label"` or `"regression"`.
        one_hot: Bool. Whether its targets of classes are vectors rather than numbers.
        from_logits: Bool or None. Whether it takes logits; None for regression.
        ignore_class: Int or None. The label that does not count.
        counts: Bool. Whether its targets must be numbers of classes, so that any other number is a mistake.
    """

    kind: str
    one_hot: bool
    from_logits: bool | None
    ignore_class: int | None
    counts: bool


def known(loss: Any, classes: int) -> Known | None:
    """Returns the facts about a loss, or None for a custom loss.

    Args:
        loss: A loss as `compile` takes it: a name, a function or an object.
        classes: Int. The size of the last axis of the output.
    """
    ignored = setting_of_loss(loss, "ignore_class")
    if isinstance(loss, (PixelLoss, SmoothedCrossEntropy)):
        own = type(loss).__module__.startswith("dropzoo.")
        return Known("binary" if classes == 1 else "multi_class", False, True, ignored, own)
    found = _keras_loss(loss)
    if found is None:
        return None
    name, from_logits = found
    kind, one_hot = _KINDS[name]
    if kind == "labels":
        kind = "binary" if classes == 1 else "multi_label"
    logits = None if kind == "regression" else from_logits
    return Known(kind, one_hot, logits, ignored, name == "sparsecategoricalcrossentropy")


def _keras_loss(loss: Any) -> tuple[str, bool] | None:
    """Returns the name of a loss of Keras and whether it takes logits, or None for any other loss."""
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None  # "crossentropy", which `compile` resolves; or an unknown name, which it refuses
    home = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    name = getattr(home, "__name__", "").replace("_", "").lower()
    if name not in _KINDS or not getattr(home, "__module__", "").startswith("keras."):
        return None
    return name, bool(setting_of_loss(loss, "from_logits"))
