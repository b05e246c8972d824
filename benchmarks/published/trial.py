"""Tries surgery, report, sampling and export on a network that others publish."""

import contextlib
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from zoo import Published

from dropzoo import models, serving
from dropzoo.common.keras_internals import flatten_layers
from dropzoo.models.graph.random import random_layers

BOUND = 3.5
"""By how many standard errors two samplings may differ."""


class Failure(Exception):
    """Raised if a step does not hold; the text says why."""


class Trial:
    """A published network, and the steps to try on it, in order.

    Args:
        published: The network.
    """

    STEPS = ("list_sites", "retrofit", "dropout_report", "strip_dropout", "rate_0", "sample", "export")

    def __init__(self, published: Published) -> None:
        keras.utils.set_random_seed(0)
        self.published = published
        self.original = shaken(published.make())
        self.images = _images(published, 2)
        self.expected = _arrays(self.original(self.images, training=False))
        try:
            self.original.predict(self.images, verbose=0)
        except Exception as error:
            raise Failure(f"`model.predict` of Keras fails on it: {_reason(error)}") from error
        self.model = self.original
        self.sampler: serving.MonteCarlo | None = None
        self.notes: dict[str, str] = {}

    def list_sites(self) -> None:
        """Lists the sites, and matches every layer that draws at random by its name."""
        _check(bool(models.list_sites(self.original)), "no site is listed")
        for layer in random_layers(self.original):
            models.match_sites(self.original, [layer.path])

    def retrofit(self) -> None:
        """Puts dropout in; inference stays the same to the bit.

        A class that cannot be built around another graph is first replaced by `keras.Model`, as the error advises.
        """
        try:
            self.model = self._copied(lambda share: models.retrofit(self.original, self.published.plan, share))
        except ValueError as error:
            if "keras.Model(model.inputs, model.outputs)" not in str(error):
                raise
            self.notes["class"] = (
                f"needs `keras.Model(model.inputs, model.outputs)`: `{type(self.original).__name__}` cannot be "
                "rebuilt with a new graph"
            )
            self.original = keras.Model(self.original.inputs, self.original.outputs)
            self.model = self._copied(lambda share: models.retrofit(self.original, self.published.plan, share))
        added = [site for site in models.list_sites(self.model) if site.spec]
        _check(bool(added), "no dropout stands in the copy")
        _same(self.model(self.images, training=False), self.expected)

    def dropout_report(self) -> None:
        """Every dropout layer drops as much as its rate says."""
        report = models.dropout_report(self.model, self.images, masks=self.published.masks)
        reported = {row.site for row in report}
        unseen = [s.name for s in models.list_sites(self.model) if s.spec and s.name not in reported]
        _check(not unseen, f"not in the report: {unseen}")
        for row in report:
            if row.dropped is not None and row.rate is not None:
                _check(abs(row.dropped - row.rate) < 0.15, f"drops another fraction: {row}")

    def strip_dropout(self) -> None:
        """Takes dropout out again; inference stays the same to the bit, and a warning names layers that stay."""
        with _warned() as texts:
            stripped = self._copied(lambda share: models.strip_dropout(self.model, share))
        _same(stripped(self.images, training=False), self.expected)
        left = [layer.path for layer in random_layers(stripped) if layer.rate != 0]
        unnamed = [path for path in left if path.rpartition("/")[2] not in " ".join(texts)]
        _check(not unnamed, f"left, and not named: {unnamed}")
        if left:
            self.notes["left"] = (
                f"`strip_dropout` names {len(left)} dropout layers inside other layers, which it cannot remove"
            )

    def rate_0(self) -> None:
        """At rate 0 the mean of the samples is the answer of the model."""
        if any(layer.kind != "dropout" for layer in random_layers(self.model)):
            return
        sampler = self._sampler(num_samples=2, sites={"*": 0.0})
        plain = _probabilities(sampler, self.images)
        for (mean, _), p in zip(_statistics(sampler(self.images)), plain, strict=True):
            _near(mean, p, 1e-4)

    def sample(self) -> None:
        """Mean and variance agree with those of passes with `training=True`, BatchNorm frozen."""
        count = self.published.samples
        sampler = self._sampler(num_samples=count, sampling="independent", return_samples=True)
        image = self.images[:1]
        with _warned() as texts:
            found = _samples(sampler(image))
        self.sampler = sampler
        if sampler.plain_passes:
            self.notes["plain"] = "; ".join(
                dict.fromkeys(r.rpartition(": ")[2] for r in sampler.plain_passes.split("; "))
            )
        with frozen(self.model):
            run = tf.function(lambda x: sampler.reader.read(_flat(self.model(x, training=True))))
            passes = [run(image) for _ in range(count)]
        expected = [np.stack([np.asarray(p[i])[0] for p in passes]) for i in range(len(found))]
        for one, other in zip(found, expected, strict=True):
            compare(one[0], other)
        if texts and not sampler.plain_passes:
            self.notes["warned"] = "; ".join(texts)

    def export(self) -> None:
        """The exported answers are those of the model and of the sampler."""
        options = {"task": self.published.task, **self.published.options}
        sampler = self._sampler(num_samples=3, sampling="fixed", seed=7)
        with tempfile.TemporaryDirectory() as folder, _warned():
            path = serving.export_model(self.model, Path(folder) / "net" / "1", 3, seed=7, **options)
            loaded = tf.saved_model.load(str(path))
            fed = dict(zip(_names(loaded.signatures["serving_default"]), [tf.constant(self.images)], strict=True))
            answers = {name: loaded.signatures[name](**fed) for name in ("serving_default", "predict_mc")}
            offline = sampler(self.images)
        names = [f"{output.name}_" if len(sampler.reader.outputs) > 1 else "" for output in sampler.reader.outputs]
        key = "values" if self.published.task == "regression" else "probabilities"
        plain = [answers["serving_default"][name + key] for name in names]
        _close(plain, _probabilities(sampler, self.images))
        for statistic, each in zip(("mean", "variance"), zip(*_statistics(offline), strict=True), strict=True):
            _close([answers["predict_mc"][name + statistic] for name in names], list(each))

    def _copied(self, make: Callable[[bool], keras.Model]) -> keras.Model:
        """A copy. If a layer cannot be copied, the copy shares weights, as the error advises."""
        try:
            return make(False)
        except ValueError as error:
            named = re.search(r"Cannot copy layer '(\S+)'", str(error))
            if named is None or "share_weights=True" not in str(error):
                raise
            kind = type(next(x for x in flatten_layers(self.original) if x.name == named[1])).__name__
            self.notes["share"] = f"needs `share_weights=True`: `{kind}` cannot be rebuilt from its config"
            return make(True)

    def _sampler(self, **options: Any) -> serving.MonteCarlo:
        with _warned():
            return serving.MonteCarlo(self.model, task=self.published.task, **self.published.options, **options)


def shaken(model: keras.Model) -> keras.Model:
    """Moves the biases and scales of a model away from zero and one, so that every layer matters.

    Fresh networks have scales near zero at the ends of their residual branches, which hide the branches.
    """
    rng = np.random.default_rng(1)
    for weight in model.weights:
        value = np.asarray(weight)
        if np.issubdtype(value.dtype, np.floating) and (value.ndim < 2 or not value.any()):
            weight.assign(value + rng.uniform(0.02, 0.2, value.shape).astype(value.dtype))
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with the values of its last `adapt` until then
    return model


@contextlib.contextmanager
def frozen(model: keras.Model) -> Iterator[None]:
    """Keeps BatchNorm in inference mode."""
    layers = [x for x in flatten_layers(model) if "batchnorm" in type(x).__name__.lower()]
    before = [layer.trainable for layer in layers]
    for layer in layers:
        layer.trainable = False
    try:
        yield
    finally:
        for layer, trainable in zip(layers, before, strict=True):
            layer.trainable = trainable


def compare(one: np.ndarray, other: np.ndarray) -> None:
    """Raises a Failure if two sets of samples `(samples, ...)` differ by more than Monte-Carlo error."""
    a, b = (x.reshape(len(x), -1).astype("float64") for x in (one, other))
    _check(bool(np.isfinite(a).all() and np.isfinite(b).all()), "the samples are not finite")
    spread = [x.var(0, ddof=1) for x in (a, b)]
    _check(spread[1].sum() > 0, "plain passes do not vary")
    error = np.sqrt(spread[0] / len(a) + spread[1] / len(b)) + 1e-6 * (1 + np.abs(b).max())
    of_mean = np.sqrt((((a.mean(0) - b.mean(0)) / error) ** 2).mean())
    far = [((x - x.mean(0)) ** 2).sum(1) * len(x) / (len(x) - 1) for x in (a, b)]
    of_variance = (far[0].mean() - far[1].mean()) / (
        np.sqrt(far[0].var() / len(a) + far[1].var() / len(b)) + 1e-3 * far[1].mean()
    )
    report = (
        f"mean off by {of_mean:.1f}, variance by {of_variance:.1f} standard errors; "
        f"variances {spread[0].sum():.3g} and {spread[1].sum():.3g}"
    )
    _check(of_mean < BOUND and abs(of_variance) < BOUND, report)


def tried(published: Published, say: Callable[[str], None] = print) -> dict[str, str]:
    """Runs all steps and returns the result of each: "" if it works, or the reason why not."""
    found: dict[str, str] = {}
    start = time.time()
    try:
        trial = Trial(published)
    except Exception as error:
        say(f"{published.id}: {_reason(error)}")
        return {"build": _reason(error)}
    say(f"{published.id}: built in {time.time() - start:.1f} s")
    for step in Trial.STEPS:
        start = time.time()
        try:
            getattr(trial, step)()
            found[step] = ""
        except Exception as error:
            found[step] = _reason(error)
        say(f"   {step}: {found[step] or 'ok'} ({time.time() - start:.1f} s)")
    return found | {f"note_{name}": note for name, note in trial.notes.items()}


def _reason(error: Exception) -> str:
    text = " ".join(str(error).replace("\x1b[1m", "").replace("\x1b[0m", "").split())
    return text[:300] if isinstance(error, Failure) else f"{type(error).__name__}: {text[:200]}"


def _images(published: Published, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.random((count, *published.shape)) * published.high).astype("float32")


def _flat(outputs: Any) -> list[Any]:
    return keras.tree.flatten(outputs)


def _arrays(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(x) for x in _flat(outputs)]


def _same(outputs: Any, expected: list[np.ndarray]) -> None:
    for x, y in zip(_arrays(outputs), expected, strict=True):
        worst = float(np.abs(x - y).max())
        _check(bool(np.isfinite(y).all()), "the network's own answer is not finite")
        _check(worst == 0, f"inference differs by {worst:.3g}")


def _close(found: list[Any], expected: list[Any]) -> None:
    for x, y in zip(found, expected, strict=True):
        _near(x, y, 1e-3)


def _near(found: Any, expected: Any, tolerance: float) -> None:
    x, y = np.asarray(found), np.asarray(expected)
    worst = float(np.abs(x - y).max())
    _check(worst <= tolerance * max(float(np.abs(y).max()), 1e-3), f"answers differ by {worst:.3g}")


def _check(holds: bool, text: str) -> None:
    if not holds:
        raise Failure(text)


def _each(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a sampler, one for each output."""
    return [found] if "mean" in found else list(found.values())


def _statistics(found: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(each["mean"]), np.asarray(each["variance"])) for each in _each(found)]


def _samples(found: dict[str, Any]) -> list[np.ndarray]:
    return [np.asarray(each["samples"]) for each in _each(found)]


def _probabilities(sampler: serving.MonteCarlo, images: np.ndarray) -> list[np.ndarray]:
    flat = sampler.reader.check(images)
    return [np.asarray(p) for p in sampler.reader.read(sampler.reader.call(flat))]


def _names(signature: Any) -> list[str]:
    return list(signature.structured_input_signature[1])


@contextlib.contextmanager
def _warned() -> Iterator[list[str]]:
    """Catches warnings, and yields a list of their texts."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
        texts += [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
