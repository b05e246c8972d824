"""SavedModels with a deterministic and a Monte-Carlo signature."""

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from dropzoo import layers
from dropzoo.serving._figures import probabilities
from dropzoo.serving.monte_carlo import MonteCarlo, check_single


def export_model(
    model: keras.Model,
    path: str | os.PathLike,
    num_samples: int = 30,
    *,
    image_dtype: str = "float32",
    sampling: str = "fixed",
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a SavedModel that loads without this package and without Keras.

    Signatures, both of `images`, `(batch, height, width, channels)`, unknown sizes where the model allows:

    - `serving_default`: `probabilities` and `classes` (int32, the likeliest). Deterministic, with no random
      operation in its graph.
    - `predict_mc`: `mean`, `variance`, `predictive_entropy`, `mutual_information`, see `MonteCarlo`. A pure
      function: the answer for an image does not depend on the others, on earlier requests, or on the process.

    Beside them, `assets.extra/model.keras` is the model itself, since a SavedModel cannot be trained further, and
    `assets.extra/info.json` says what the classes are.

    Args:
        model: A Functional or Sequential model of one image input and one output of logits.
        path: The folder to write, by custom `NAME/VERSION`. It appears as a whole or not at all.
        num_samples: Int, the Monte-Carlo samples; 0 leaves `predict_mc` out.
        image_dtype: `"float32"` for images in [0, 1], or `"uint8"`.
        sampling: As for `MonteCarlo`; `"fixed"` masks are the same for all images.
        seed: Int, of the masks.
        class_names: Names of the classes, for `info.json`.
        overwrite: Bool, replace the folder at `path`, once the new export is complete. On Linux the two change
            places in one step, where the file system can do that. Elsewhere a kill in the moment between two
            renames leaves both beside `path`, the old one as `.NAME-PROCESS-unfinished-old`.

    Returns:
        The path.

    Raises:
        ValueError: if `path` exists, if there is no dropout to sample, or if `sampling` or `seed` is given without
            samples.

    Example:
    >>> import tempfile
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = serving.export_model(model, f"{folder}/cnn/1", num_samples=5)
    ...     sorted(p.name for p in (path / "assets.extra").iterdir())
    ['info.json', 'model.keras']
    """
    path = Path(path)
    check_single(model)
    if image_dtype not in ("float32", "uint8"):
        raise ValueError(f"`image_dtype` must be 'float32' or 'uint8'. Received: image_dtype={image_dtype!r}")
    if not isinstance(num_samples, int) or num_samples < 0:
        raise ValueError(f"`num_samples` must be an int of at least 0. Received: num_samples={num_samples!r}")
    if not num_samples and (sampling, seed) != ("fixed", 0):
        raise ValueError(
            "`sampling` and `seed` are for Monte-Carlo samples, of which num_samples=0 asks for none. "
            f"Received: sampling={sampling!r}, seed={seed!r}"
        )
    if path.is_symlink() or path.is_file():
        raise ValueError(f"{path} is a file or a link, and not a folder that an export can replace")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; choose another version, or pass overwrite=True")
    if num_samples and not any(map(layers.is_stochastic, model._flatten_layers())):
        raise ValueError("The model has no dropout layer to sample; pass num_samples=0 for an export without it")

    module = tf.Module()
    spec = tf.TensorSpec([None, *model.input_shape[1:]], image_dtype, name="images")
    scale = 255.0 if image_dtype == "uint8" else 1.0

    def serving_default(images: tf.Tensor) -> dict[str, tf.Tensor]:
        p = probabilities(model(tf.cast(images, tf.float32) / scale, training=False))
        best = tf.argmax(p, -1, tf.int32) if p.shape[-1] != 1 else tf.cast(p[..., 0] > 0.5, tf.int32)
        return {"probabilities": p, "classes": best}

    signatures = {"serving_default": tf.function(serving_default, input_signature=[spec], autograph=False)}
    if num_samples:
        monte_carlo = MonteCarlo(model, num_samples, sampling, seed=seed)

        def predict_mc(images: tf.Tensor) -> dict[str, tf.Tensor]:
            # Plain operations: not every server can compile.
            pixels = tf.cast(images, tf.float32) / scale
            return monte_carlo.sample(pixels, tf.constant(seed, tf.int64), plain=True)

        signatures["predict_mc"] = tf.function(predict_mc, input_signature=[spec], autograph=False)
    # A SavedModel may read only variables that it holds; live rates are variables that Keras does not know of.
    rates = [layer.live_rate() for layer in model._flatten_layers() if hasattr(layer, "live_rate")]
    module.held = [variable.value for variable in model.variables] + rates

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}-{os.getpid()}-unfinished"
    try:
        tf.saved_model.save(module, str(unfinished), signatures=signatures)
        extra = unfinished / "assets.extra"
        extra.mkdir()
        model.save(extra / "model.keras")
        info = {"class_names": list(class_names) if class_names else None, "num_samples": num_samples}
        (extra / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        _put_in_place(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _put_in_place(new: Path, path: Path) -> None:
    if not path.exists():
        os.rename(new, path)
        return
    if _exchange(new, path):
        shutil.rmtree(new)
        return
    old = new.with_name(f"{new.name}-old")
    os.rename(path, old)
    try:
        os.rename(new, path)
    except BaseException:
        os.rename(old, path)
        raise
    shutil.rmtree(old)


def _exchange(a: Path, b: Path) -> bool:
    """Lets two folders change places in one step, which Python does not offer; False where that cannot be done."""
    if sys.platform != "linux" or not hasattr(libc := ctypes.CDLL(None), "renameat2"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return libc.renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
