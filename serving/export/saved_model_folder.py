"""The folder of a SavedModel: what it holds, and that it appears as a whole or not at all."""

import contextlib
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import keras
import tensorflow as tf

from dropzoo import layers
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.record import remembering
from dropzoo.serving.export.card import write_card
from dropzoo.serving.export.predictors import Predictors
from dropzoo.serving.export.signatures import Signatures
from dropzoo.serving.export.warmup import warmup_requests, write_warmup
from dropzoo.serving.montecarlo.states import States

# Classes of TensorFlow objects with a state, which layers may hold.
_HELD = (
    tf.Variable,
    tf.random.Generator,
    tf.lookup.StaticHashTable,
    tf.lookup.StaticVocabularyTable,
    tf.lookup.experimental.MutableHashTable,
    tf.lookup.experimental.DenseHashTable,
)


def write_saved_model(
    version: Path,
    overwrite: bool,
    made: Predictors,
    signatures: Signatures,
    functions: Mapping[str, tf.types.experimental.ConcreteFunction],
    pixels: Sequence[Pixels | None],
    info: Mapping[str, object],
    card: Mapping[str, object],
) -> None:
    """Writes a SavedModel with all that belongs to it, as `export_model` describes.

    Args:
        version: The folder to write.
        overwrite: Bool, whether to replace the folder that may be there.
        made: The predictors behind the signatures.
        signatures: The signatures.
        functions: The signatures, traced, by name.
        pixels: The images that each input takes.
        info: The content of `info.json`.
        card: The content of the model card.
    """
    with _whole_version(version, overwrite) as unfinished:
        module = module_of(made.models)
        module.held += [variable for each in functions.values() for variable in each.graph.variables]
        tf.saved_model.save(module, str(unfinished), signatures=functions)
        extra = unfinished / "assets.extra"
        extra.mkdir()
        _save_members(made.models, extra, pixels)
        if made.calibration is not None:
            made.calibration.save(extra / "calibration.json")
        (extra / "info.json").write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
        write_card(extra, card)
        files = {each.file_name for each in signatures.inputs if each.is_file}
        requests = warmup_requests(signatures.specs(), files)
        write_warmup(extra / "tf_serving_warmup_requests", version.parent.name, requests)


def module_of(members: Sequence[keras.Model]) -> tf.Module:
    """Returns an object with all variables that the signatures read; without it TensorFlow cannot save them."""
    module = tf.Module()
    module.held = []
    for model in members:
        # `model.variables` does not list live rates, the states of stateful layers, or the tables of words.
        rates = [layer.live_rate() for layer in layers.dropouts(model) if layers.has_live_rate(layer)]
        own = [
            value for layer in flatten_layers(model) for value in vars(layer).values() if isinstance(value, _HELD)
        ]
        states = States(model).variables
        module.held += [variable.value for variable in model.variables] + states + rates + own
    return module


def _save_members(members: Sequence[keras.Model], folder: Path, pixels: Sequence[Pixels | None]) -> None:
    """Saves a model as `model.keras`, or the members of an ensemble as `member1.keras` and so on."""
    for number, member in enumerate(members, 1):
        _save_keras(member, folder / ("model.keras" if len(members) == 1 else f"member{number}.keras"), pixels)


def _save_keras(model: keras.Model, path: Path, pixels: Sequence[Pixels | None]) -> None:
    """Saves the model with the range of its images, or warns if Keras cannot save it."""
    known = pixels[0] if len(pixels) == 1 else None
    try:
        with remembering(model, known) if known is not None and known.source else nullcontext():
            model.save(path)
    except (NotImplementedError, TypeError, ValueError) as error:  # a class without a `get_config` that works
        path.unlink(missing_ok=True)
        warnings.warn(f"`model.keras` is left out, because Keras cannot save the model: {error}", stacklevel=5)


@contextlib.contextmanager
def _whole_version(version: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a folder to write to, which becomes the version after the block. After an error nothing is left."""
    version.parent.mkdir(parents=True, exist_ok=True)
    # A number of the process would come again in a container, and be shared by threads.
    unfinished = version.parent / f".{version.name}-{secrets.token_hex(8)}-unfinished"
    try:
        yield unfinished
        if overwrite:
            _replace(unfinished, version)
        else:
            os.rename(unfinished, version)  # fails if another export was faster
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _replace(new: Path, path: Path) -> None:
    """Moves a folder to `path`, in place of the folder that may be there. An error leaves the old folder there."""
    if not path.exists():
        os.rename(new, path)
        return
    old = new.with_name(f"{new.name}-old")
    try:
        os.rename(path, old)
        os.rename(new, path)
    finally:
        if path.exists():  # it holds the new export, or the export of another process that was faster
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)
