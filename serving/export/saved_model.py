"""SavedModels with deterministic and Monte-Carlo signatures, their preprocessing inside."""

import ctypes
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from dropzoo import layers
from dropzoo.common.checks import check_pair
from dropzoo.serving.export.card import model_card, write_card
from dropzoo.serving.export.signatures import Preprocess, signatures, takes_integers
from dropzoo.serving.export.warmup import warmup_requests, write_warmup
from dropzoo.serving.montecarlo.sampler import check_single
from dropzoo.serving.montecarlo.statistics import check_kind


def export_model(
    model: keras.Model,
    path: str | os.PathLike,
    num_samples: int = 30,
    *,
    image_dtype: str = "float32",
    resize: int | tuple[int, int] | None = None,
    sampling: str = "fixed",
    seed: int = 0,
    task: str = "multi_class",
    class_names: Sequence[str] | None = None,
    card: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a SavedModel that loads without this package and without Keras.

    Signatures, of `images`, `(batch, height, width, channels)`, unknown sizes where the model allows or `resize`
    is given:

    - `serving_default`: `probabilities` and `classes` (int32, the likeliest); for several labels `probabilities`
      and `labels` (int32, 1 above a half); for regression `values`. Deterministic, with no random operation in its
      graph.
    - `predict_mc`: `mean`, `variance` and, but for regression, `predictive_entropy` and `mutual_information`, see
      `MonteCarlo`. A pure function: the answer for an image does not depend on the others, on earlier requests, or
      on the process.
    - `predict_bytes`, of `image_bytes`, `(batch,)`: PNG or JPEG files, brought to the model's channels (1, 3 or 4)
      and size, and answered as by `serving_default`; masks have the model's size. Where the model takes any size,
      the images of a batch must share one.

    In `assets.extra` lie `model.keras`, the model itself, since a SavedModel cannot be trained further;
    `info.json`, the task, what the classes are and the size of the images; `model_card.md` and `.json`; and
    `tf_serving_warmup_requests`.

    Args:
        model: A Functional or Sequential model of one image input and one output: logits, or what a last softmax
            or sigmoid makes of them. It takes images in [0, 1]; of an integer dtype, pixels as they are.
        path: The folder to write: `NAME/VERSION`, or `NAME` for the next version in it. It appears as a whole or
            not at all.
        num_samples: Int, the Monte-Carlo samples; 0 leaves `predict_mc` out.
        image_dtype: What is sent: `"float32"` for images in [0, 1], or `"uint8"`.
        resize: Int or `(height, width)`: images of any size are brought to this one, and masks back to theirs.
        sampling: As for `MonteCarlo`; `"fixed"` masks are the same for all images.
        seed: Int, of the masks.
        task: What the model's output means, as for `MonteCarlo`.
        class_names: Names of the classes, labels or outputs, for `info.json`.
        card: What the model card cannot know: `data`, `metrics`, `calibration`, `commit`, or sections of your own.
        overwrite: Bool, replace the folder at `path`, once the new export is complete. On Linux the two change
            places in one step, where the file system can do that. Elsewhere a kill in the moment between two
            renames leaves both beside `path`, the old one as `.NAME-PROCESS-unfinished-old`.

    Returns:
        The path of the version.

    Raises:
        ValueError: if `path` exists, if there is no dropout to sample, if `sampling` or `seed` is given without
            samples, or if the output does not fit the task.

    Example:
    >>> import tempfile
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = serving.export_model(model, f"{folder}/cnn", num_samples=5, card={"data": "digits"})
    ...     path.name, sorted(p.name for p in (path / "assets.extra").glob("m*"))
    ('1', ['model.keras', 'model_card.json', 'model_card.md'])
    """
    check_single(model)
    check_kind(task, model)
    if image_dtype not in ("float32", "uint8"):
        raise ValueError(f"`image_dtype` must be 'float32' or 'uint8'. Received: image_dtype={image_dtype!r}")
    if takes_integers(model) and image_dtype != "uint8":
        raise ValueError(
            f"A model that takes {model.inputs[0].dtype} takes pixels as they are: pass image_dtype='uint8'. "
            f"Received: image_dtype={image_dtype!r}"
        )
    if not isinstance(num_samples, int) or num_samples < 0:
        raise ValueError(f"`num_samples` must be an int of at least 0. Received: num_samples={num_samples!r}")
    if not num_samples and (sampling, seed) != ("fixed", 0):
        raise ValueError(
            "`sampling` and `seed` are for Monte-Carlo samples, of which num_samples=0 asks for none. "
            f"Received: sampling={sampling!r}, seed={seed!r}"
        )
    if num_samples and not any(map(layers.is_stochastic, model._flatten_layers())):
        raise ValueError("The model has no dropout layer to sample; pass num_samples=0 for an export without it")
    preprocess = Preprocess(model, image_dtype, _check_resize(model, resize))
    names = _check_names(model, class_names, task)
    path = _check_path(Path(path), overwrite)

    facts = {
        "input": {"shape": list(preprocess.spec.shape[1:]), "dtype": image_dtype, "resize": preprocess.resize},
        "task": task,
        "outputs" if task == "regression" else "classes": names or model.output_shape[-1],
        "monte_carlo": {"num_samples": num_samples, "sampling": sampling, "seed": seed} if num_samples else {},
    }
    filled = model_card(model, facts, card or {})
    functions = signatures(model, preprocess, num_samples, sampling, seed, task)
    module = tf.Module()
    # A SavedModel may read only variables that it holds; live rates are variables that Keras does not know of.
    rates = [layer.live_rate() for layer in model._flatten_layers() if hasattr(layer, "live_rate")]
    module.held = [variable.value for variable in model.variables] + rates

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{path.name}-{os.getpid()}-unfinished"
    try:
        tf.saved_model.save(module, str(unfinished), signatures=functions)
        extra = unfinished / "assets.extra"
        extra.mkdir()
        model.save(extra / "model.keras")
        size = preprocess.fixed_size if len(model.input_shape) == 4 else None  # what a server must reckon with
        info = {"task": task, "class_names": names, "num_samples": num_samples, "image_size": size}
        (extra / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        write_card(extra, filled)
        specs = {name: preprocess.spec_of(name) for name in functions}
        write_warmup(extra / "tf_serving_warmup_requests", path.parent.name, warmup_requests(specs))
        if overwrite:
            _put_in_place(unfinished, path)
        else:
            os.rename(unfinished, path)  # fails where another export was faster
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _check_resize(model: keras.Model, resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    size = check_pair(resize, "resize")
    if len(model.input_shape) != 4:
        raise ValueError(f"`resize` is for models of images. Received: a model of {model.input_shape}")
    if any(n not in (None, wanted) for n, wanted in zip(model.input_shape[1:3], size, strict=True)):
        raise ValueError(
            f"`resize` must be the model's size, {model.input_shape[1:3]}. Received: resize={resize!r}"
        )
    return size


def _check_names(model: keras.Model, class_names: Sequence[str] | None, task: str) -> list[str] | None:
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise ValueError(f"`class_names` must be a list of names. Received: class_names={class_names!r}")
    count = model.output_shape[-1]
    if count == 1 and task in ("multi_class", "binary"):  # one logit tells two classes apart
        count = 2
    if len(class_names) != count:
        raise ValueError(f"`class_names` must have {count} names. Received: {len(class_names)}")
    return list(map(str, class_names))


def _check_path(path: Path, overwrite: bool) -> Path:
    """Where the version goes; the next number for a name without one."""
    if path.is_symlink() or path.is_file():
        raise ValueError(f"{path} is a file or a link, and not a folder that an export can replace")
    if not path.name.isdigit():
        if overwrite:
            raise ValueError(f"overwrite=True needs the version to replace, such as {path / '1'}")
        taken = [int(p.name) for p in path.iterdir() if p.name.isdigit()] if path.exists() else []
        return path / str(max(taken, default=0) + 1)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; choose another version, or pass overwrite=True")
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
