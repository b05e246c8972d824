"""`calibrate`: fits a temperature, the sites that drop, and guarantees on held-out images."""

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from dropzoo.common.checks import check_choice, check_count, check_seed
from dropzoo.serving.calibration.calibration import Calibration
from dropzoo.serving.calibration.fitting.figures import figures_of
from dropzoo.serving.calibration.fitting.forms import first_of, pairs_of
from dropzoo.serving.calibration.fitting.heldout import HeldOut
from dropzoo.serving.calibration.fitting.promise import Promise
from dropzoo.serving.calibration.fitting.promises import promises_of
from dropzoo.serving.calibration.fitting.rows import Rows
from dropzoo.serving.calibration.fitting.sampling import Reader, by_position, statistics_at
from dropzoo.serving.calibration.fitting.search import search
from dropzoo.serving.calibration.fitting.sources import Samples, Source, source_of
from dropzoo.serving.calibration.temperature import fit_temperature

_FIT_SHARE = 1 / 3
_PREPARED = {"miss", "error", "interval"}  # these promises choose something on other images first


def calibrate(
    predictor: Any,
    images: Any,
    labels: Any = None,
    *,
    temperature: bool | Literal["per_class"] = True,
    sites: Literal["as_is", "search"] = "as_is",
    guarantee: Mapping[str, float] | None = None,
    confidence: float = 0.9,
    classes: Sequence[int] | None = None,
    task: str | None = None,
    from_logits: bool | None = None,
    data: str = "",
    ignore_class: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 1,
) -> Calibration:
    """Fits a temperature, the sites that drop, and guarantees on held-out images.

    The images must be new to the model: it was not trained on them, and they were not used to choose it. A
    guarantee holds for new images from the same source as the held-out ones.

    If you ask for a guarantee and something else is fitted too (a temperature, sites, or free parameters of a
    guarantee), these are fitted to a third of the images. The guarantee is based only on the others, so that the
    fitting does not weaken it. The seed and the contents of all images determine the parts; the order of the
    images does not matter.

    Args:
        predictor: A Keras model (one pass, its dropout off), a `MonteCarlo` with a fixed number of samples, an
            `Ensemble`, or a `TestTimeAugmentation`.
        images: Array of images, or batches `(images, labels)`: a `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            `DataLoader` of PyTorch. Batches are read several times and may be larger than memory.
        labels: Array of labels; None with a dataset. For `"multi_class"`, a class number or a one-hot vector for
            each image or pixel; for `"binary"`, 0 or 1 for each image or pixel; for `"multi_label"`, 0 or 1 for
            each label; for `"regression"`, the values.
        temperature: True for one temperature, `"per_class"` for one temperature for each class (each class needs
            many examples), or False for none. A regression has no temperature.
        sites: `"as_is"` keeps the sites and rates of `predictor`. `"search"` chooses which sites drop, and at
            which multiple of their rates (0.1 to 2), to minimise the NLL. It chooses one pass without dropout
            unless another choice is better by more than a standard error. It needs a Keras model or a
            `MonteCarlo`, and is not for a regression, which has no NLL.
        guarantee: Dict from names of guarantees to their levels in (0, 1). `"set"`: the set of classes misses the
            true class in at most this share of images. `"miss"`: the outer mask misses at most this share of a
            class's pixels. `"false"`: at most this share of the inner mask is wrong. `"error"`: at most this share
            of the answers that are given, and not deferred to a human, are wrong. `"interval"`: at most this share
            of the values lie outside their intervals. See docs/guarantees.md for the conditions.
        confidence: Float in (0, 1), the probability with which `"error"` holds. The other guarantees hold on
            average.
        classes: List of ints, the classes for which `"miss"` and `"false"` hold; None for all classes. Each
            of these classes needs held-out examples, for `"set"` too. If the model has a single
            output unit, its class, the second of two, has the number 0 here.
        task: Str or None, the output kind of a Keras model, as for `MonteCarlo`. If None, the loss of the model
            determines it. Any other predictor knows its own.
        from_logits: Bool or None, whether the output of a Keras model is logits, as for `MonteCarlo`. If None,
            `calibrate` finds it out. Any other predictor knows this, too.
        data: Str, the name of the held-out data, for the record.
        ignore_class: Int, the label of pixels or images that do not count, as in `keras.metrics.MeanIoU`; None if
            all count. Only for tasks with one class for each pixel or image.
        batch_size: Positive int, how many images to read at a time.
        seed: Int in [0, 2**32), the seed of the split of the images.
        verbose: 1 for a progress bar, 0 for none.

    Returns:
        A `Calibration`.

    Raises:
        ValueError: If there are too few images for a level (the error says the lowest possible level), a class has
            no held-out example, a label is not one of the model's classes, a level is not in (0, 1), a guarantee
            is unknown or not meant for such outputs, or no threshold achieves the level.

    Example:
    >>> import numpy as np
    >>> from dropzoo import models, serving
    >>> model = models.build_model("simple_cnn", input_shape=(8, 8, 1), num_classes=2, dropout={"dense1": 0.5})
    >>> images = np.random.default_rng(0).random((90, 8, 8, 1), "float32")
    >>> labels = np.arange(90) % 2
    >>> mc = serving.MonteCarlo(model, num_samples=4)
    >>> cal = serving.calibrate(mc, images, labels, guarantee={"set": 0.1}, verbose=0)
    >>> cal.n, cal.guarantees["set"].n
    (90, (60,))

    Reference:
        Angelopoulos and Bates, "A Gentle Introduction to Conformal Prediction", 2021, arXiv:2107.07511; for
        dropout that is added after training: Ledda, Fumera and Roli, 2023, arXiv:2302.02924.
    """
    _check_options(temperature, sites, confidence)
    pairs = pairs_of(images, labels, check_count(batch_size, "batch_size"))
    example = first_of(pairs)
    source = source_of(predictor, task, example, from_logits)
    source.readers[0].inputs.check(example)
    shape = source.output.shape
    about = _check_classes(classes, shape[-1] or 1)
    promises = promises_of(guarantee or {}, source.kind, shape, confidence, about)
    tempers = bool(temperature) and source.kind != "regression"
    if sites == "search" and source.kind == "regression":
        raise ValueError(
            "sites='search' minimises the NLL, which a regression does not have. Received: a regression model. "
            "Pass sites='as_is' instead"
        )
    fits = tempers or sites == "search" or bool(_PREPARED & promises.keys())

    _check_ignored(ignore_class, source.kind)
    heldout = HeldOut(pairs, source.kind, shape, ignore_class)
    heldout.scan()
    first, then = heldout.split(_FIT_SHARE if promises and fits else float(fits), check_seed(seed))
    _check_examples(heldout, about, promises, temperature)
    for name, promise in promises.items():
        promise.check(heldout.count(then))
        for k in about if name == "miss" else ():
            promise.check(heldout.images_with(k, then), f" of class {k}")

    if sites == "search":
        source = search(source, heldout, first, tempers, verbose)
    judged = source.kind != "regression" and fits  # values have no figures
    reads = heldout.count(first) * (judged + bool(promises)) + heldout.count(then) * bool(promises)
    reader = Reader(heldout, reads, verbose)
    fitted, figures = _fit(source, reader, first, temperature if tempers else False) if judged else (1.0, {})
    for part in (first, then) if promises else ():
        for batch, samples in reader.answers(source, part):
            out = statistics_at(samples, fitted, source.output)
            for promise in promises.values():
                (promise.prepare if part is first else promise.add)(out, batch.labels)
    return Calibration(
        temperature=fitted,
        sites=source.sites,
        guarantees={name: promise.settle() for name, promise in promises.items()},
        facts=source.facts(),
        figures=figures,
        n=len(heldout.keys),
        data=data,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        versions=_versions(),
    )


def _fit(
    source: Source, reader: Reader, part: set[int], temperature: bool | str
) -> tuple[float | tuple[float, ...], dict[str, dict[str, float]]]:
    """The temperature, and the figures of the samples and of one pass, before and after their temperature."""
    width = source.output.classes or 1
    one = source.with_sites({}) if isinstance(source, Samples) else None
    samples, once = Rows(source.num_samples, width), Rows(1, width)
    for batch, p in reader.answers(source, part):
        samples.add(batch.keys, by_position(p), batch.labels)
        if one is not None:
            once.add(batch.keys, by_position(one.samples(batch.inputs)), batch.labels)
    fitted: float | tuple[float, ...] = 1.0
    figures: dict[str, dict[str, float]] = {}
    for name, rows in ([("one_pass", once)] if one else []) + [
        ("one_pass" if source.num_samples == 1 else "samples", samples)
    ]:
        _, p, labels = rows.arrays()
        figures[name] = figures_of(p, labels, source.kind)
        if temperature:
            fitted = fit_temperature(p, labels, source.kind, temperature == "per_class")
            figures[f"{name}_temperature"] = figures_of(p, labels, source.kind, fitted)
    return fitted, figures


def _check_options(temperature: object, sites: object, confidence: object) -> None:
    if not isinstance(temperature, bool) and temperature != "per_class":
        raise ValueError(
            f"`temperature` must be True, False or 'per_class'. Received: temperature={temperature!r}"
        )
    check_choice(sites, "sites", ("as_is", "search"))
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1). Received: confidence={confidence!r}")


def _check_ignored(ignore_class: int | None, kind: str) -> None:
    if ignore_class is not None and kind not in ("multi_class", "binary"):
        raise ValueError(
            f"`ignore_class` is only for tasks with one class for each pixel or image, and the task is "
            f"{kind!r}. Leave `ignore_class` out. Received: "
            f"ignore_class={ignore_class!r}"
        )


def _check_classes(classes: Sequence[int] | None, width: int) -> tuple[int, ...]:
    """The classes that guarantees are about, without repeats."""
    if classes is None:
        return tuple(range(width))
    chosen = tuple(dict.fromkeys(classes))
    if not chosen or not all(isinstance(k, (int, np.integer)) and 0 <= k < width for k in chosen):
        raise ValueError(
            f"`classes` must hold at least one number, each from 0 to {width - 1}. Received: {classes!r}"
        )
    return tuple(map(int, chosen))


def _check_examples(
    heldout: HeldOut, about: tuple[int, ...], promises: Mapping[str, Promise], temperature: bool | str
) -> None:
    """Raises a ValueError if a class that must have held-out examples has none."""
    if not {"set", "miss", "false"} & promises.keys() and temperature != "per_class":
        return
    needed = range(heldout.classes) if temperature == "per_class" else about
    if missing := [k for k in needed if not heldout.images_with(k)]:
        raise ValueError(
            f"Each class needs held-out examples. Received: none of class {', '.join(map(str, missing))}. Add "
            f"images of this class; or leave it out of `classes`, and pass temperature=True instead of "
            f"'per_class'"
        )


def _versions() -> dict[str, str]:
    return {
        "dropzoo": importlib.metadata.version("dropzoo"),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
