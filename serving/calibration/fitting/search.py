"""The search over sites and shares of their rates, on a trained model and with one trace."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from dropzoo.serving.calibration.fitting.heldout import VOID, Batch, HeldOut
from dropzoo.serving.calibration.fitting.rows import image_means
from dropzoo.serving.calibration.fitting.sampling import check_positions
from dropzoo.serving.calibration.fitting.settings import settings_of
from dropzoo.serving.calibration.fitting.sources import Source
from dropzoo.serving.calibration.sites import can_set, named_sites
from dropzoo.serving.calibration.temperature import fit_temperature, row_nll

LEAST_IMAGES = 20
_BYTES = 1 << 27  # at most this many bytes of images and labels in memory
_VALUES = 1 << 21  # at most this many numbers in the samples of a batch
_KEEP, _FINALISTS = 4, 3
_RACED = 4  # a race uses at most this many times the images that it begins with
# For images with one answer, and for maps: how many images a race begins with, how many are compared at most, and
# how many samples score a setting. With few samples a mean is worse than it will be, which favours one pass.
_IMAGES, _MAPS = (16, 1024, 16), (2, 32, 8)
_PIXELS = 256  # at most this many of each map

#: Function from images and a temperature (None for the best one) to the NLL of each image and the temperature.
Scorer = Callable[[Sequence[Batch], float | None], tuple[np.ndarray, float]]


def search(source: Source, heldout: HeldOut, part: set[int], tempers: bool, verbose: int = 0) -> Source:
    """Returns the source with the sites and rates that give the lowest negative log-likelihood.

    Up to 200 settings are scored with 16 samples (8 for maps) on a few images. The best quarter is scored again on
    twice as many images, and so on, until three settings are left. The three, the sites as they are, and one pass
    are then compared on the other images, each at its best temperature. An entrant is good if its NLL is within a
    standard error of the best NLL (the error of the difference, image by image). The cheapest good entrant is
    chosen, so one pass wins unless dropout is better by a standard error.

    Rates are variables while settings are scored, so the model is traced once. Masks are the same in all settings,
    which makes small differences visible. Layers whose rate cannot be set stay off.

    Args:
        source: The predictor: a model or its Monte-Carlo samples.
        heldout: The held-out images.
        part: Keys of the images to search on.
        tempers: Bool, whether each setting is scored at its best temperature.
        verbose: 1 for a progress bar, 0 for none.

    Raises:
        ValueError: If the predictor has no site whose rate can be set, or there are fewer than 20 images.
    """
    names = {name: layer for name, layer in named_sites(source.model).items() if can_set(layer)}
    if not source.searchable:
        what = "test-time augmentation" if source.facts().transforms else "an ensemble"
        raise ValueError(
            f"sites='search' needs a single model with dropout. Received: {what}. Pass sites='as_is' instead"
        )
    if not names:
        raise ValueError(
            "sites='search' needs a model with dropout whose rate can be set; models.retrofit adds such dropout "
            "to any model. Received: a model without such dropout"
        )
    if len(part) < LEAST_IMAGES:
        raise ValueError(
            f"sites='search' needs at least {LEAST_IMAGES} images. Received: {len(part)} (with a guarantee, it "
            "gets only a third of all images). Pass more images, or sites='as_is'"
        )
    images = _load(heldout, part)
    raced = min(len(images) // 2, _RACED * _limits(images)[0])
    settings = settings_of([float(layer.rate) for layer in names.values()])
    samples = _limits(images)[2]
    live = _Live(source, list(names), samples)
    bar = keras.utils.Progbar(_count(len(settings)), unit_name="setting") if verbose else None
    finalists = list(_race(live, settings, images[:raced], tempers, bar))

    entrants: list[tuple[Source, Scorer]] = [(one := source.with_sites({}), _scorer(one))]
    if source.sites and set(source.sites) <= set(names):
        entrants.append((source, live.scorer([source.sites.get(name, 0.0) for name in names])))
    elif source.sites:
        entrants.append((source, _scorer(source.with_sites(source.sites, samples))))
    for rates in finalists:
        on = {name: float(rate) for name, rate in zip(names, rates, strict=True) if rate}
        entrants.append((source.with_sites(on), live.scorer(rates)))
    return _choose(entrants, images[raced:], tempers)


class _Live:
    """A source whose rates are variables.

    Args:
        source: The predictor.
        names: Its sites.
        num_samples: Int, the number of samples; None for that of the predictor.
    """

    def __init__(self, source: Source, names: list[str], num_samples: int | None) -> None:
        self._rates = {name: tf.Variable(0.0, trainable=False, dtype=tf.float32) for name in names}
        self._source = source.with_sites(self._rates, num_samples)

    def scorer(self, rates: Sequence[float]) -> Scorer:
        """Returns the scorer of a setting, which sets the rates when it is called."""

        def score(images: Sequence[Batch], temperature: float | None) -> tuple[np.ndarray, float]:
            for variable, rate in zip(self._rates.values(), rates, strict=True):
                variable.assign(rate)
            return _scorer(self._source)(images, temperature)

        return score


def _load(heldout: HeldOut, part: set[int]) -> list[Batch]:
    """Some images of a part, as many as memory allows, each in a batch of its own."""
    loaded: list[Batch] = []
    size = 0
    for batch in heldout.batches(set(sorted(part)[: _IMAGES[1]]), 1):
        for i in range(len(batch.keys)):
            if loaded and len(loaded) == _limits(loaded)[1]:
                return loaded
            one = Batch(*(keras.tree.map_structure(lambda x, i=i: x[i : i + 1], each) for each in batch))
            size += sum(x.nbytes for x in keras.tree.flatten(one.inputs)) + one.labels.nbytes
            if len(loaded) >= LEAST_IMAGES and size > _BYTES:
                return loaded
            loaded.append(one)
    return loaded


def _limits(images: Sequence[Batch]) -> tuple[int, int, int]:
    """The limits for images with one answer or for maps; a map counts for many answers."""
    return _IMAGES if images[0].labels.shape[1] == 1 else _MAPS


def _joined(images: Sequence[Batch], values: int) -> list[Batch]:
    """The images in batches of one shape each, so small that `values` numbers for each position fit in memory.

    All batches of images of one shape have the same size, because each new size costs a compilation. The last
    batch repeats an image for this; it has fewer labels and keys than inputs.
    """
    shapes: dict[str, list[Batch]] = {}
    for one in images:
        shapes.setdefault(str([x.shape for x in keras.tree.flatten(one.inputs)]), []).append(one)
    joined = []
    for same in shapes.values():
        most = max(1, min(_limits(images)[0], _VALUES // (values * same[0].labels.shape[1])))
        for first in range(0, len(same), most):
            some = same[first : first + most]
            full = [one.inputs for one in some] + [some[-1].inputs] * (most - len(some))
            inputs = keras.tree.map_structure(lambda *x: np.concatenate(x), *full)
            labels, keys = (np.concatenate([one[i] for one in some]) for i in (1, 2))
            joined.append(Batch(inputs, labels, keys))
    return joined


def _count(settings: int) -> int:
    """How many scores a race computes."""
    if settings <= _FINALISTS:
        return 0
    return settings + _count(max(_FINALISTS, settings // _KEEP))


def _race(
    live: _Live, settings: np.ndarray, images: list[Batch], tempers: bool, bar: keras.utils.Progbar | None
) -> np.ndarray:
    """The few settings that are left after the worst three quarters have been dropped again and again."""
    count = _limits(images)[0]
    while len(settings) > _FINALISTS:
        scores = []
        for rates in settings:
            scores.append(live.scorer(rates)(images[:count], None if tempers else 1.0)[0].mean())
            if bar is not None:
                bar.add(1)
        settings = settings[np.argsort(scores, kind="stable")[: max(_FINALISTS, len(settings) // _KEEP)]]
        count *= 2
    return settings


def _scorer(source: Source) -> Scorer:
    """The scorer of a source."""

    def score(images: Sequence[Batch], temperature: float | None) -> tuple[np.ndarray, float]:
        parts = []
        for batch in _joined(images, source.num_samples * (source.output.classes or 1)):
            samples = source.samples(batch.inputs)[: len(batch.keys)]
            check_positions(samples, batch)
            p, labels = samples.numpy(), batch.labels
            p = np.moveaxis(p.reshape(*p.shape[:2], -1, p.shape[-1]), 1, 2)  # (batch, positions, samples, classes)
            step = -(-labels.shape[1] // _PIXELS)
            p, labels = p[:, ::step], labels[:, ::step]
            keys = np.repeat(batch.keys, labels.shape[1])
            p, labels = p.reshape(-1, *p.shape[2:]), labels.reshape(-1, *labels.shape[2:])
            counts = labels != VOID if labels.ndim == 1 else np.ones(len(labels), bool)
            parts.append((keys[counts], p[counts], labels[counts]))
        keys, answers, truth = (np.concatenate(each) for each in zip(*parts, strict=True))
        if temperature is None:
            temperature = float(np.mean(fit_temperature(answers, truth, source.kind)))
        return image_means(keys, row_nll(answers, truth, source.kind, temperature)), temperature

    return score


def _choose(entrants: list[tuple[Source, Scorer]], images: list[Batch], tempers: bool) -> Source:
    """The cheapest entrant that is within a standard error of the best, on images that were not raced on."""
    scores = [score(images, None if tempers else 1.0)[0] for _, score in entrants]
    best = scores[int(np.argmin([each.mean() for each in scores]))]
    good = [source for (source, _), mine in zip(entrants, scores, strict=True) if _small(mine - best)]
    return min(good, key=lambda source: source.cost())


def _small(differences: np.ndarray) -> bool:
    """Whether the mean of differences is at most its standard error."""
    return bool(differences.mean() <= differences.std(ddof=1) / np.sqrt(len(differences)))
