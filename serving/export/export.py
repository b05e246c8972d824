"""Exports of models: SavedModels with deterministic and Monte-Carlo signatures, and files for other runtimes."""

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from dropzoo.common.checks import check_choice
from dropzoo.common.pixels import Pixels
from dropzoo.models.graph.inputs import hint_of
from dropzoo.models.graph.random import random_layers
from dropzoo.models.graph.record import Ranges, taken_by_each
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.words import calibration_info
from dropzoo.serving.export.card import facts_of, info_of, model_card
from dropzoo.serving.export.checks import ClassNames, check_names, check_path, check_resize
from dropzoo.serving.export.examples import examples_of
from dropzoo.serving.export.files import check_format, write_file
from dropzoo.serving.export.inputs import Input, inputs_of, settle, specs_of
from dropzoo.serving.export.parts import Unrolled
from dropzoo.serving.export.precision import in_float32
from dropzoo.serving.export.predictors import Predictors, or_without_samples, predictors_of
from dropzoo.serving.export.saved_model_folder import module_of, write_saved_model
from dropzoo.serving.export.signatures import Signatures
from dropzoo.serving.montecarlo.active import redirectable
from dropzoo.serving.montecarlo.ensembles import Ensemble
from dropzoo.serving.montecarlo.inputs import InputsLike
from dropzoo.serving.montecarlo.probe import random_operations
from dropzoo.serving.montecarlo.reader import Said, Tasks
from dropzoo.serving.montecarlo.sampler import MonteCarlo

_log = logging.getLogger("dropzoo.serving")


def export_model(
    model: keras.Model | Ensemble,
    path: str | os.PathLike,
    num_samples: int = 30,
    *,
    calibration: Calibration | None = None,
    image_dtype: str = "float32",
    input_range: Ranges = None,
    resize: int | tuple[int, int] | None = None,
    sampling: str = "fixed",
    seed: int = 0,
    task: Tasks = None,
    from_logits: Said = None,
    class_names: ClassNames = None,
    card: Mapping[str, object] | None = None,
    overwrite: bool = False,
    format: str = "saved_model",
    precision: str = "float32",
    examples: InputsLike = None,
) -> Path:
    """Writes a SavedModel that loads without this package and without Keras, or a file for another runtime.

    The signatures `serving_default` and `predict_mc` of a SavedModel take `images`, `(batch, height, width,
    channels)`. The height and width are None if the model takes any size or `resize` is given. If a model has
    several inputs, or takes tokens or texts, these signatures take the inputs by name.

    - `serving_default` returns `probabilities` and `classes` (int32, the likeliest class); for a multi-label model
      `probabilities` and `labels` (int32, 1 if the probability is above 0.5); for regression `values`. It is
      deterministic, with no random operation in its graph, unless the model's own code draws random numbers in
      inference too; a warning and the model card then say so.
    - `predict_mc` returns `mean`, `variance` and, except for regression, `predictive_entropy` and
      `mutual_information`, as `MonteCarlo` does. The same image always gets the same answer: it does not depend on
      the other images, on earlier requests, or on the process. There is one exception: if layers are sampled by
      plain passes (see `MonteCarlo`), the answer depends on the place of the image in the batch; a warning and the
      model card say so.
    - `predict_bytes` takes `image_bytes`, `(batch,)`, which are PNG or JPEG files. It rotates photographs upright
      according to their EXIF data, and converts files to the model's range, channels (1, 3 or 4) and size; a
      16-bit PNG file keeps its 16 bits. It returns the same outputs as `serving_default`; masks have the model's
      size, even with `resize`. If the model takes any size and `resize` is None, all images of a batch must have
      the same size. If a model has several inputs, each image input gets the ending `_bytes` in this signature
      (`photo` becomes `photo_bytes`), and the other inputs keep their names. If no input can be read from image
      files, there is no such signature.

    With a `calibration`, `predict_mc` returns calibrated outputs under the same names, and also the answers of the
    guarantees: `set` and `defer` for classes, `outer`, `inner` and `defer` for masks, `lower` and `upper` for
    regression (see `Calibration.apply`). If the calibration is for one pass, or for an ensemble without dropout,
    `serving_default` and `predict_bytes` do the same. Otherwise these two signatures do not use the calibration.

    For an `Ensemble`, `serving_default` and `predict_bytes` return the mean of the members without dropout, and
    `predict_mc` uses the members instead of samples. If the ensemble has `num_samples`, `predict_mc` returns the
    statistics of these samples of its members. One SavedModel contains all members.

    If a model has several outputs, each name in an answer begins with the name of the output:
    `prob_probabilities`, `prob_mean`, `dist_values`.

    The other formats are files for runtimes that do not need TensorFlow: `"onnx"` for ONNX Runtime, `"litert"` for
    phones, `"openvino"` for Intel processors (two files, `.xml` and `.bin`). The answers have the same names, and
    the files draw exactly the same dropout masks. A file is tested before it appears at `path`: its runtime must
    give the same answers as TensorFlow for random images. The file also holds the info, the model card and, if
    there is one, the calibration, as JSON texts in its metadata. The guide on serving shows how to run each
    format.

    `assets.extra` of a SavedModel holds `model.keras` (for an ensemble `member1.keras` and so on);
    `calibration.json`, if there is one; `info.json`, with the task, the class names, the number of samples, and
    the size and range of the images; `model_card.md` and `model_card.json`; and `tf_serving_warmup_requests`. A
    SavedModel cannot be trained further, but `model.keras` can.

    Args:
        model: A built Keras model, or an `Ensemble`. Its inputs can have any dtype. For a subclassed model, the
            inputs have the shapes with which it was built.
        path: The folder to write: `NAME/VERSION`, or `NAME` for the next version in it; for other formats the
            file, `NAME.onnx`, `NAME.tflite` or `NAME.xml`. It is written completely or not at all.
        num_samples: Int of at least 0, the number of Monte-Carlo samples. 0 leaves `predict_mc` out. The number of
            samples of an `Ensemble`, their sampling and their seed are set in the ensemble.
        calibration: A `Calibration` that `calibrate` fitted for this model or ensemble, or None. It sets the
            number of samples, the sampling and the sites. An `Ensemble` that has a calibration is exported with
            it: then pass None.
        image_dtype: Dtype of the images in a request: `"float32"` for pixels in the range that the model takes;
            `"uint8"` or `"uint16"` for pixels as files store them, which are scaled inside. If the model itself
            takes integers, pass `"uint16"` for uint16, and `"uint8"` for any other type.
        input_range: `(low, high)`, the values of a black and of a white pixel that the model takes, such as
            `(0, 255)`; or a dict of such pairs by the name of the input. None means: first, the range of the
            images that the model was trained on with `Trainer`; then, the range that its first layers imply (such
            as `Rescaling`); otherwise (0, 1), which the model card marks as assumed.
        resize: Positive int, `(height, width)` or None, in pixels. Images of any size are resized to this size,
            and masks are resized back; None does not resize.
        sampling: `"fixed"`, where all images have the same masks; `"balanced"` or `"independent"`, as for
            `MonteCarlo`.
        seed: Int in [0, 2**32), the seed of the masks.
        task: Str or None, the kind of each output, as for `MonteCarlo`.
        from_logits: Bool or None, whether each output is logits, as for `MonteCarlo`. None means: first, the graph
            of the model decides; then, its outputs for random images; then, the loss of a compiled model.
            Otherwise, an error asks for this argument.
        class_names: List of the names of the classes, labels or values, for `info.json`; for several outputs a
            dict of lists by output.
        card: Dict of the sections of the model card that the export cannot know: `data`, `metrics`, `calibration`,
            `commit`, or sections of your own. The values must be expressible in JSON. With a `calibration`, the
            export fills in the section of that name itself.
        overwrite: Bool, whether to replace the export at `path` once the new one is complete. If there is an
            error, the old export stays in place. For a SavedModel, `path` must be `NAME/VERSION`, and a folder
            that holds no export is refused. The folder is replaced by two renames. If the process is killed
            between them, nothing is at `path`, but both exports are in the same parent folder, the old one as
            `.VERSION-CODE-unfinished-old`. A file of another format is replaced in a single step. OpenVINO has two
            files: if the process is killed between them, `NAME.xml` is missing.
        format: `"saved_model"`, `"onnx"`, `"litert"` or `"openvino"`. The last three need an extra of the same
            name: `pip install '.[onnx]'`.
        precision: `"float32"`; or, for all formats except SavedModel, `"float16"`, which stores the weights in
            half the bytes. Dropout masks and arithmetic stay in 32 bits. `"int8"` quantises a model for LiteRT;
            it requires `num_samples=0` and `examples`. A calibration requires `"float32"`.
        examples: Typical inputs for `precision="int8"`, which requires them: an array, or for several inputs a
            list or a dict by name, of the dtype of requests (see `image_dtype`). The first 200 determine the
            ranges of the integers.

    Returns:
        The `Path` of the version, `NAME/VERSION`, or of the file.

    Raises:
        ValueError: If an argument is bad, `path` exists and `overwrite` is False, there is no dropout to sample,
            `sampling` or `seed` is given without samples, the output does not fit the task, it is not known
            whether the output is logits, the model was trained on a range other than `input_range`, or the format
            cannot express the model.
        ImportError: If a package for the format is missing.
        RuntimeError: If the runtime of the format gives different answers from TensorFlow.

    Example:
    >>> import tempfile
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", dropout={"dense1": 0.5})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = serving.export_model(model, f"{folder}/cnn", num_samples=5, card={"data": "digits"})
    ...     path.name, sorted(p.name for p in (path / "assets.extra").glob("m*"))
    ('1', ['model.keras', 'model_card.json', 'model_card.md'])
    """
    check_choice(image_dtype, "image_dtype", ("float32", "uint8", "uint16"))
    check_format(format, precision, Path(path), overwrite)
    is_file = format != "saved_model"
    made = predictors_of(
        model, num_samples, sampling, seed, calibration, {"task": task, "from_logits": from_logits}
    )
    _check_calibrated(made.calibration, precision)
    with or_without_samples():
        specs = specs_of(made.reader, made.sampled or made.default)
    pixels = _pixels_of(made.models, {name: tuple(spec.shape) for name, spec in specs.items()}, input_range)
    size = check_resize(specs, pixels, resize)
    inputs = inputs_of(specs, image_dtype, size, pixels)
    for reader in made.readers:
        settle(reader, inputs)
    shown = examples_of(made.reader, inputs, examples, precision, num_samples)
    _say_range(made.models[0], inputs)
    names = check_names(made.reader.outputs, class_names)
    version = Path(path) if is_file else check_path(Path(path), overwrite)
    purity = {} if is_file else _purity(made.samplers)
    facts = facts_of(made.reader.outputs, inputs, names, made.card() | purity)
    filled = model_card(made.models, facts | _promised(made), card or {})
    info = info_of(made.reader.outputs, inputs, names, made.num_samples) | {"members": len(made.models)}
    if is_file:
        said = {"info": info | _promised(made), "model_card": filled}
        said |= {} if made.calibration is None else {"calibration": made.calibration.content()}
        unrolled = Unrolled(made, inputs, seed)
        with in_float32(made.models, format, made.calibration is not None):
            return write_file(version, format, precision, unrolled, said, module_of(made.models), shown)
    signatures = Signatures(made, inputs, seed)
    functions = signatures.functions()
    filled |= _loose_answer(functions["serving_default"], made.models)
    write_saved_model(version, overwrite, made, signatures, functions, pixels, info | _promised(made), filled)
    return version


def _check_calibrated(calibration: Calibration | None, precision: str) -> None:
    """Raises a ValueError for rounded answers, since thresholds hold only for the answers that fitted them."""
    if calibration is not None and precision != "float32":
        raise ValueError(
            "The calibration holds for float32 answers: pass precision='float32', or export the model without its "
            f"calibration. Received: precision={precision!r}"
        )


def _say_range(model: keras.Model, inputs: Sequence[Input]) -> None:
    """Logs each input whose range is only assumed, or that cannot be read from files.

    Warns if the range is assumed for a network whose published weights expect other images.
    """
    hint = hint_of(model)
    for each in inputs:
        if each.pixels is None:
            continue
        if not each.pixels.from_files:
            _log.warning(
                "`predict_bytes` takes no image files for %r: the model takes pixels from %s. Put the "
                "preprocessing into the model, or pass input_range=(low, high) (--input-range LOW,HIGH)",
                each.name,
                each.pixels.words,
            )
        elif not each.pixels.source:
            text = (
                f"Images in [0, 1] are assumed for {each.name!r}: nothing in the model says which range it takes. "
                f"Pass its range: input_range=(low, high) (--input-range LOW,HIGH).{hint}"
            )
            if hint:
                warnings.warn(text, stacklevel=3)
            else:
                _log.warning(text)


def _purity(samplers: Sequence[MonteCarlo]) -> dict[str, object]:
    """Returns the card's note about `predict_mc` if its answer for an image depends on more than the image."""
    reason = next((each.plain_passes for each in samplers if each.plain_passes), None)
    if reason is None:
        return {}
    warnings.warn(
        f"`predict_mc` samples by plain passes in training mode ({reason}), so the answer for an image depends on "
        f"its place in the batch. Use a dropout layer of dropzoo.layers instead, or pass num_samples=0 to leave "
        f"`predict_mc` out",
        stacklevel=3,
    )
    return {"plain_passes": f"{reason}. The answer for an image depends on its place in the batch"}


def _loose_answer(
    function: tf.types.experimental.ConcreteFunction, members: Sequence[keras.Model]
) -> dict[str, object]:
    """Returns the card's note about `serving_default` if the model's code draws random numbers in inference."""
    if not random_operations(function.graph):
        return {}
    known = {id(layer) for member in members for layer in redirectable(member)}
    found = [each.path for member in members for each in random_layers(member) if id(each.layer) not in known]
    which = ", ".join(dict.fromkeys(found)) or "code of the model"
    reason = (
        f"{which} draws random numbers in inference too, so the answer for an image differs from request to "
        "request"
    )
    warnings.warn(
        f"`serving_default` is not deterministic: {reason}. Let this code draw only if `training` is true, or "
        "use a dropout layer",
        stacklevel=3,
    )
    return {"serving_default": f"Not deterministic: {reason}"}


def _pixels_of(
    members: Sequence[keras.Model], shapes: Mapping[str, tuple[int | None, ...]], said: Ranges
) -> list[Pixels | None]:
    """The images that each input takes, which must be the same for all members of an ensemble."""
    first, *others = [taken_by_each(member, shapes, said) for member in members]
    for number, other in enumerate(others, 2):
        for mine, its in zip(first, other, strict=True):
            if mine is not None and its is not None and mine.range != its.range:
                raise ValueError(
                    "The members must take images of the same range. "
                    f"Received: {mine.words} for the first, {its.words} for number {number}"
                )
    return first


def _promised(made: Predictors) -> dict[str, object]:
    """Returns the entry of the card and of `info.json` for the calibration; nothing without one."""
    return {} if made.calibration is None else {"calibration": calibration_info(made.calibration)}
