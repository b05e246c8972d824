"""Writes SavedModels that have deterministic and Monte-Carlo signatures, with their preprocessing inside."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from dropzoo import layers
from dropzoo.common.checks import check_choice, check_pair
from dropzoo.serving.export.card import model_card, write_card
from dropzoo.serving.export.signatures import Preprocess, signatures, takes_integers
from dropzoo.serving.export.warmup import warmup_requests, write_warmup
from dropzoo.serving.montecarlo.reader import Reader, check_single


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
    card: Mapping[str, object] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a SavedModel that loads without this package and without Keras.

    Its signatures take `images`, `(batch, height, width, channels)`. Height and width are unknown if the model
    takes any size or `resize` is given.

    - `serving_default` returns `probabilities` and `classes` (int32, the likeliest class); for several labels
      `probabilities` and `labels` (int32, 1 for a probability above a half); for regression `values`. It is
      deterministic, with no random operation in its graph.
    - `predict_mc` returns `mean`, `variance` and, except for regression, `predictive_entropy` and
      `mutual_information`, as `MonteCarlo` does. It is a pure function: the answer for an image does not depend on
      the other images, on earlier requests, or on the process.
    - `predict_bytes` takes `image_bytes`, `(batch,)`, which are PNG or JPEG files. It converts them to the model's
      channels (1, 3 or 4) and resizes them to the model's size. It returns the same outputs as `serving_default`,
      and masks have the model's size. If the model takes any size, all images of a batch must have the same size.

    `assets.extra` holds `model.keras`, which is the model itself, because a SavedModel cannot be trained further;
    `info.json`, with the task, the class names, the number of samples and the size of the images; `model_card.md`
    and `model_card.json`; and `tf_serving_warmup_requests`.

    Args:
        model: A Functional or Sequential model of one image input and one output. The output is logits, or the
            result of a last softmax or sigmoid. The model takes images in [0, 1]; if its input has an integer
            dtype, it takes pixels as they are.
        path: The folder to write: `NAME/VERSION`, or `NAME` for the next version in it. It appears as a whole or
            not at all.
        num_samples: Int, the number of Monte-Carlo samples. 0 leaves `predict_mc` out.
        image_dtype: Dtype of the images in a request: `"float32"` for images in [0, 1], or `"uint8"`.
        resize: Int or `(height, width)`. Images of any size are resized to this size, and masks are resized back.
        sampling: As for `MonteCarlo`. With `"fixed"` all images have the same masks.
        seed: Int in [0, 2**32), the seed of the masks.
        task: What the model's output means, as for `MonteCarlo`.
        class_names: List of the names of the classes, labels or outputs, for `info.json`.
        card: Dict of the sections of the model card that the export cannot know: `data`, `metrics`, `calibration`,
            `commit`, or sections of your own. Its values are those that JSON can express.
        overwrite: Bool, whether to replace the folder at `path`, which must be `NAME/VERSION`, once the new export
            is complete. An error leaves the old export in place. If the process is killed between the two renames,
            both exports stay beside `path`, the old one as `.VERSION-PROCESS-unfinished-old`.

    Returns:
        The `Path` of the version, `NAME/VERSION`.

    Raises:
        ValueError: If an argument is bad, `path` exists and `overwrite` is False, there is no dropout to sample,
            `sampling` or `seed` is given without samples, or the output does not fit the task.

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
    Reader(model, task)  # checks that the output fits the task
    _check_dtype(model, image_dtype)
    _check_samples(model, num_samples, sampling, seed)
    preprocess = Preprocess(model, image_dtype, _check_resize(model, resize))
    names = _check_names(model, class_names, task)
    version = _check_path(Path(path), overwrite)
    facts = {
        "input": {"shape": list(preprocess.spec.shape[1:]), "dtype": image_dtype, "resize": preprocess.resize},
        "task": task,
        "outputs" if task == "regression" else "classes": names or model.output_shape[-1],
        "monte_carlo": {"num_samples": num_samples, "sampling": sampling, "seed": seed} if num_samples else {},
    }
    filled = model_card(model, facts, card or {})
    size = preprocess.fixed_size if len(model.input_shape) == 4 else None
    info = {"task": task, "class_names": names, "num_samples": num_samples, "image_size": size}
    functions = signatures(model, preprocess, num_samples, sampling, seed, task)

    version.parent.mkdir(parents=True, exist_ok=True)
    unfinished = version.parent / f".{version.name}-{os.getpid()}-unfinished"
    try:
        tf.saved_model.save(_module(model), str(unfinished), signatures=functions)
        extra = unfinished / "assets.extra"
        extra.mkdir()
        model.save(extra / "model.keras")
        (extra / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        write_card(extra, filled)
        specs = {name: preprocess.spec_of(name) for name in functions}
        write_warmup(extra / "tf_serving_warmup_requests", version.parent.name, warmup_requests(specs))
        if overwrite:
            _replace(unfinished, version)
        else:
            os.rename(unfinished, version)  # fails if another export was faster
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return version


def _module(model: keras.Model) -> tf.Module:
    """An object that holds all variables that the signatures read, without which TensorFlow cannot save them."""
    module = tf.Module()
    # Live rates are variables that `model.variables` does not list.
    rates = [layer.live_rate() for layer in layers.dropouts(model) if layers.has_live_rate(layer)]
    module.held = [variable.value for variable in model.variables] + rates
    return module


def _check_dtype(model: keras.Model, image_dtype: str) -> None:
    check_choice(image_dtype, "image_dtype", ("float32", "uint8"))
    if takes_integers(model) and image_dtype != "uint8":
        raise ValueError(
            f"A model that takes {model.inputs[0].dtype} takes pixels as they are: pass image_dtype='uint8'. "
            f"Received: image_dtype={image_dtype!r}"
        )


def _check_samples(model: keras.Model, num_samples: int, sampling: str, seed: int) -> None:
    if not isinstance(num_samples, int) or num_samples < 0:
        raise ValueError(f"`num_samples` must be an int of at least 0. Received: num_samples={num_samples!r}")
    if not num_samples and (sampling, seed) != ("fixed", 0):
        raise ValueError(
            "`sampling` and `seed` are for Monte-Carlo samples, but num_samples=0 asks for none. "
            f"Received: sampling={sampling!r}, seed={seed!r}"
        )
    if num_samples and not layers.dropouts(model):
        raise ValueError("The model has no dropout layer to sample; pass num_samples=0 to leave out `predict_mc`")


def _check_resize(model: keras.Model, resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    size = check_pair(resize, "resize")
    if len(model.input_shape) != 4:
        raise ValueError(f"`resize` needs a model of images. Received: a model with the input {model.input_shape}")
    if any(n not in (None, wanted) for n, wanted in zip(model.input_shape[1:3], size, strict=True)):
        raise ValueError(
            f"`resize` must be the model's size, {model.input_shape[1:3]}. Received: resize={resize!r}"
        )
    return size


def _check_names(model: keras.Model, class_names: Sequence[str] | None, kind: str) -> list[str] | None:
    if class_names is None:
        return None
    if isinstance(class_names, str):
        raise ValueError(f"`class_names` must be a list of names. Received: class_names={class_names!r}")
    count = model.output_shape[-1]
    if count == 1 and kind in ("multi_class", "binary"):  # one logit tells two classes apart
        count = 2
    if len(class_names) != count:
        raise ValueError(f"`class_names` must have {count} names. Received: {len(class_names)}")
    return list(map(str, class_names))


def _check_path(path: Path, overwrite: bool) -> Path:
    """The folder of the version to write; it has the next free number if the path has no number."""
    if path.is_symlink() or path.is_file():
        raise ValueError(f"{path} is a file or a link, so an export cannot replace it; choose another path")
    if not path.name.isdigit():
        if overwrite:
            raise ValueError(f"overwrite=True needs the version to replace, such as {path / '1'}")
        taken = [int(p.name) for p in path.iterdir() if p.name.isdigit()] if path.exists() else []
        return path / str(max(taken, default=0) + 1)
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already; choose another version, or pass overwrite=True")
    return path


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
