"""The differences between the versions of Keras that dropzoo runs on, from 3.10 to the newest."""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from dropzoo.common.files import whole_file

#: Arguments that later versions add to the configs of layers and initializers that Keras 3.10 has too, with their
#: defaults. Keras 3.10 refuses to load a config with an argument that it does not know.
NEWER_ARGUMENTS = {
    "input_axes": None,  # of the initializers that scale by the number of inputs
    "output_axes": None,
    "quantization_config": None,  # of Dense, EinsumDense and Embedding
    "gptq_unpacked_column_size": None,
    "renorm": False,  # of BatchNormalization
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}

#: Layers that run in a graph only if the sizes of their inputs are known.
NEED_SIZES: tuple[type[keras.Layer], ...] = (keras.layers.TimeDistributed,)
if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 12):
    NEED_SIZES += (keras.layers.Flatten,)


def setting_of_loss(loss: Any, name: str) -> Any:
    """Returns an argument of a loss, such as `from_logits`, or None if the loss has no such argument.

    Keras 3.16 keeps the arguments of its losses only in their configs; in earlier versions they are also
    attributes.

    Args:
        loss: A loss as `compile` takes it: a name, a function or an object.
        name: Str, the name of the argument.

    Example:
    >>> import keras
    >>> from dropzoo.common.keras_versions import setting_of_loss
    >>> setting_of_loss(keras.losses.BinaryCrossentropy(from_logits=True), "from_logits")
    True
    """
    if hasattr(loss, name) or not isinstance(loss, keras.losses.Loss):
        return getattr(loss, name, None)
    try:
        return loss.get_config().get(name)
    except NotImplementedError:  # a loss of the user that has no config
        return None


def without_newer_arguments(config: Any) -> Any:
    """Returns the config of a model without the arguments that Keras 3.10 lacks, where they have their defaults.

    Newer versions load both configs as the same model. A model that uses one of these arguments keeps it, since
    older versions cannot run it.

    Args:
        config: The content of a config: dicts, lists, and values of JSON.

    Example:
    >>> from dropzoo.common.keras_versions import without_newer_arguments
    >>> without_newer_arguments({"units": 3, "quantization_config": None, "renorm": True})
    {'units': 3, 'renorm': True}
    """
    if isinstance(config, list):
        return [without_newer_arguments(each) for each in config]
    if not isinstance(config, dict):
        return config
    return {
        key: without_newer_arguments(value)
        for key, value in config.items()
        if key not in NEWER_ARGUMENTS or value != NEWER_ARGUMENTS[key]
    }


def make_readable(path: Path) -> None:
    """Rewrites a `.keras` file, so that Keras 3.10 can load it if it has all of the model's layers.

    Args:
        path: Path of a file that `model.save` has written.
    """
    with whole_file(path) as unfinished:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(unfinished, "w") as new:
            for entry in old.infolist():
                content = old.read(entry)
                if entry.filename == "config.json":
                    content = json.dumps(without_newer_arguments(json.loads(content))).encode()
                new.writestr(entry, content)
