"""Measures of a trained network: the four columns of figures, and further figures that single claims need.

The columns are `one` (one pass), `one_t` (one pass with temperature), `mc` (the mean over samples) and `mc_t`
(samples with temperature). The samples of an ensemble are its members. Temperatures are fitted on validation
images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf
from jobs import BASE, Figures, Job
from networks import Images

from dropzoo import models, serving, training
from dropzoo.serving.calibration.fitting.figures import expected_calibration_error
from dropzoo.serving.calibration.temperature import fit_temperature, mean_at, row_nll

SAMPLES = {"classification": 30, "segmentation": 10}
SEVERITY = 3
_KIND = "multi_class"
_CORRUPTED = 500  # test images, or 8 with masks
_PIXELS = 40_000  # of the validation masks, to fit a temperature on
Pair = tuple[np.ndarray, np.ndarray]


@dataclass
class Trained:
    """The networks of a job, trained, and its images.

    Attributes:
        job: The job.
        models: The members of an ensemble, or one network.
        images: The images.
        history: The history of the last training.
    """

    job: Job
    models: list[keras.Model]
    images: Images
    history: keras.callbacks.History

    @property
    def model(self) -> keras.Model:
        return self.models[0]

    @property
    def has_samples(self) -> bool:
        """Whether there is something to average over: dropout, or members."""
        return self.job.drops or len(self.models) > 1

    def one_pass(self, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities of one pass of the first network as one sample: `(values, 1, classes)`."""
        return _flat(_predict(self._passes[0], images)[:, None])

    def samples(self, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities of all samples, or of the members: `(values, samples, classes)`."""
        if len(self.models) > 1:
            return _flat(np.stack([_predict(each, images) for each in self._passes], 1))
        return self.sampled(images, self._sampler)

    def sampled(self, images: np.ndarray, sampler: serving.MonteCarlo) -> np.ndarray:
        """Returns the probabilities of the samples that a sampler draws."""
        return _flat(_predict(lambda x: sampler(x)["samples"], images))

    def sampler(self, num_samples: int, sites: dict[str, bool] | None = None) -> serving.MonteCarlo:
        """Returns a sampler of the network."""
        return serving.MonteCarlo(self.model, num_samples=num_samples, sites=sites, return_samples=True)

    @cached_property
    def temperatures(self) -> dict[str, float]:
        """The temperatures of one pass and of samples, fitted on validation images."""
        return {"one": self.fit(self.one_pass)} | ({"mc": self.fit(self.samples)} if self.has_samples else {})

    def fit(self, predict: Callable[[np.ndarray], np.ndarray]) -> float:
        """Returns the temperature of a way to predict."""
        x, y = self.images.validation
        p, labels = predict(x), y.ravel()
        some = np.random.default_rng(0).permutation(len(labels))[:_PIXELS]
        return float(fit_temperature(p[some], labels[some], _KIND))

    @cached_property
    def _sampler(self) -> serving.MonteCarlo:
        return self.sampler(SAMPLES[self.images.task])

    @cached_property
    def _passes(self) -> list[Callable[[tf.Tensor], tf.Tensor]]:
        return [
            tf.function(lambda x, model=model: tf.nn.softmax(model(x, training=False)), reduce_retracing=True)
            for model in self.models
        ]


def _predict(function: Callable[[tf.Tensor], tf.Tensor], images: np.ndarray) -> np.ndarray:
    size = 250 if images[0].size < 10_000 else 4
    batches = [images[i : i + size] for i in range(0, len(images), size)]
    return np.concatenate([function(tf.constant(batch)).numpy() for batch in batches])


def _flat(p: np.ndarray) -> np.ndarray:
    """Turns `(images, samples, ..., classes)` into `(values, samples, classes)`; a pixel is a value."""
    return np.moveaxis(p, 1, -2).reshape(-1, p.shape[1], p.shape[-1])


def figures_at(p: np.ndarray, labels: np.ndarray, temperature: float, images: int) -> Figures:
    """Returns score, NLL with its standard error over images, ECE, and how well errors are found."""
    truth = labels.ravel()
    mean = mean_at(p, _KIND, temperature)
    right, sure = mean.argmax(-1) == truth, mean.max(-1)
    losses = row_nll(p, truth, _KIND, temperature).reshape(images, -1).mean(1)
    found = {
        "score": float(right.mean()) if labels.ndim == 1 else _mean_iou(mean.argmax(-1), truth, p.shape[-1]),
        "nll": float(losses.mean()),
        "nll_se": float(losses.std(ddof=1) / np.sqrt(images)),
        "ece": expected_calibration_error(sure, right),
    }
    if labels.ndim == 1 and not right.all():
        found["auroc"] = float(training.error_auroc(1 - sure, ~right))
        found["aurc"] = float(training.aurc(1 - sure, ~right))
    return found


def _mean_iou(predicted: np.ndarray, truth: np.ndarray, classes: int) -> float:
    counts = np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float((counts.diagonal()[union > 0] / union[union > 0]).mean())


def in_columns(trained: Trained, pair: Pair, prefix: str) -> Figures:
    """Returns the figures of all columns on these images."""
    found: Figures = {}
    ways = {"one": trained.one_pass} | ({"mc": trained.samples} if trained.has_samples else {})
    for column, predict in ways.items():
        p = predict(pair[0])
        for ending, temperature in (("", 1.0), ("_t", trained.temperatures[column])):
            figures = figures_at(p, pair[1], temperature, len(pair[1]))
            found |= {f"{prefix}{name}_{column}{ending}": value for name, value in figures.items()}
    return found


def columns(trained: Trained) -> Figures:
    """The columns on validation images and, unless the job serves a choice, on test images; training figures."""
    images = trained.images
    found = in_columns(trained, images.validation, "val_")
    x, y = (each[: min(len(each), 2000)] for each in images.train)
    seen = figures_at(trained.one_pass(x), y, 1.0, len(y))
    found |= {"train_score": seen["score"], "train_nll": seen["nll"]}
    found |= {f"temperature_{column}": value for column, value in trained.temperatures.items()}
    return found if trained.job.is_tuning else found | in_columns(trained, images.test, "")


def some_test_images(images: Images) -> Pair:
    count = _CORRUPTED if images.task == "classification" else 8
    return images.test[0][:count], images.test[1][:count]


def corruptions(trained: Trained) -> Figures:
    """The columns under corruptions of middle severity, at the temperatures of clean images."""
    x, y = some_test_images(trained.images)
    found: Figures = {}
    for name in training.list_corruptions():
        worse = training.corrupt(x, name, SEVERITY).numpy()
        found |= in_columns(trained, (worse, y), f"{name}_")
    kept = {key: value for key, value in found.items() if "_nll_se_" not in key and "_aurc_" not in key}
    for name in {key.removeprefix("blur_") for key in kept if key.startswith("blur_")}:
        several = [kept[f"{each}_{name}"] for each in training.list_corruptions() if f"{each}_{name}" in kept]
        found[f"worse_{name}"] = float(np.mean(several))
    # The file keeps the means, and the score of each corruption.
    return {key: value for key, value in found.items() if key.startswith("worse_") or "_score_" in key}


def units(trained: Trained) -> Figures:
    """The score without some units before the classifier's layers, and how correlated the units are."""
    x, y = some_test_images(trained.images)
    found: Figures = {}
    bare = models.strip_dropout(trained.model)
    for share in (0.3, 0.6):  # the share of units that are removed at random; the others are scaled up
        damaged = models.retrofit(bare, {"features": share})
        p = _flat(_predict(lambda x, d=damaged: tf.nn.softmax(d(x, training=True)), x)[:, None])
        found[f"without_{share * 100:.0f}"] = figures_at(p, y, 1.0, len(y))["score"]
    before = keras.Model(bare.inputs, bare.get_layer("head").input)
    values = _predict(lambda x: before(x, training=False), x)
    values = values[:, values.std(0) > 1e-6]
    correlation = np.corrcoef(values.T)
    apart = ~np.eye(len(correlation), dtype=bool)
    return found | {"correlation": float(np.abs(correlation[apart]).mean()), "alive": float(values.shape[1])}


def few(trained: Trained) -> Figures:
    """The columns of five samples, `mc5` and `mc5_t`, which cost as much as an ensemble of five."""
    sampler = trained.sampler(5)
    temperature = trained.fit(lambda x: trained.sampled(x, sampler))
    x, y = trained.images.test
    p = trained.sampled(x, sampler)
    found: Figures = {}
    for ending, value in (("", 1.0), ("_t", temperature)):
        figures = figures_at(p, y, value, len(y))
        found |= {f"{name}_mc5{ending}": figure for name, figure in figures.items()}
    return found


def attribution(trained: Trained) -> Figures:
    """The share of the variance of each site, and the columns of sampling with the strongest site alone."""
    x, y = some_test_images(trained.images)
    table = serving.MonteCarlo(trained.model, num_samples=100).attribute(x[: min(len(x), 100)])
    found = {f"total_{site}": float(share) for site, share in zip(table.sites, table.total, strict=True)}
    found |= {f"first_{site}": float(share) for site, share in zip(table.sites, table.first, strict=True)}
    strongest = table.sites[int(np.argmax(table.total))]
    sampler = trained.sampler(SAMPLES[trained.images.task], {strongest: True})
    temperature = trained.fit(lambda x: trained.sampled(x, sampler))
    x, y = trained.images.test
    p = trained.sampled(x, sampler)
    for ending, value in (("", 1.0), ("_t", temperature)):
        figures = figures_at(p, y, value, len(y))
        found |= {f"{name}_strongest{ending}": figure for name, figure in figures.items()}
    found["strongest_over_half"] = float(table.total.max()) - 0.5
    found["strongest_cost"] = float(table.cost[int(np.argmax(table.total))] / max(table.cost.max(), 1e-9))
    return found


def gradients(trained: Trained) -> Figures:
    """How much the norm of the gradient varies over 32 training batches, with dropout on."""
    model, (x, y) = trained.model, trained.images.train
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function(reduce_retracing=True)
    def norm(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        return tf.linalg.global_norm(tape.gradient(value, [v.value for v in model.trainable_variables]))

    random = np.random.default_rng(0)
    picks = [random.choice(len(y), min(64, len(y)), replace=False) for _ in range(32)]
    norms = np.array([norm(tf.constant(x[pick]), tf.constant(y[pick])).numpy() for pick in picks])
    return {"gradient_variation": float(norms.std() / norms.mean())}


def curve(trained: Trained) -> Figures:
    """How the validation NLL went down: when it was below 0.65, its least value, its end, how much it wiggled."""
    values = np.array(trained.history.history["val_nll"])
    below = np.flatnonzero(values < 0.65)
    return {
        "epochs_to_given_nll": float(below[0] + 1) if len(below) else float(len(values) + 1),
        "best_nll": float(values.min()),
        "rise_after_best": float(values[-1] - values.min()),
        "wiggle": float(np.abs(np.diff(values, 2)).mean()),
    }


MEASURES: dict[str, Callable[[Trained], Figures]] = {
    BASE: columns,
    "corruptions": corruptions,
    "units": units,
    "few": few,
    "attribution": attribution,
    "gradients": gradients,
    "curve": curve,
}
