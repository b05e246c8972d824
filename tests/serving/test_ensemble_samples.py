"""Monte-Carlo dropout over the members of an ensemble, against NumPy and samplers of each member."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from _small_cnn import SAMPLINGS, images, small_cnn
from dropzoo import models, serving

TASKS = {"multi_class": 3, "binary": 1, "multi_label": 3, "regression": 2}
TILES = {"sampling": "fixed", "num_samples": 4}


def members(count=3, **options):
    return [small_cnn(weights_seed=i, scale=1.5, **options) for i in range(count)]


def unet():
    options = {"input_shape": (None, None, 1), "depth": 1, "filters": 4, "num_classes": 3}
    return models.build_model("unet", dropout={"bottleneck*": "spatial_dropout2d:0.3"}, **options)


def entropy(p, task):
    coins = task in ("binary", "multi_label")
    each = p * np.log(p) + ((1 - p) * np.log(1 - p) if coins else 0)
    return -each.sum(-1)


def samples_of(models, each, sampling, seed, x, **options):
    """The samples of separate samplers, `(batch, samples, ...)`, with the documented seed of each member."""
    seeds = [(seed + 2654435761 * i) % 2**32 for i in range(len(models))]
    pairs = zip(models, seeds, strict=True)
    options = {"return_samples": True, **options}
    found = [serving.MonteCarlo(m, each, sampling, seed=s, **options)(x)["samples"] for m, s in pairs]
    return np.concatenate(found, 1).astype("float64")


@pytest.mark.costly(keep=3)
@pytest.mark.covering("task", "sampling")
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("task", TASKS)
def test_statistics_are_those_of_all_samples(task, sampling):
    three, x = members(num_classes=TASKS[task]), images()
    ensemble = serving.Ensemble(three, task, num_samples=12, sampling=sampling, seed=7)
    out, p = ensemble(x), samples_of(three, 4, sampling, 7, x, task=task)
    expected = {"mean": p.mean(1), "variance": p.var(1)}
    if task != "regression":
        expected["predictive_entropy"] = entropy(p.mean(1), task)
        expected["mutual_information"] = entropy(p.mean(1), task) - entropy(p, task).mean(1)
    assert list(out) == list(expected) and p.std(1).max() > 1e-3
    for name, value in expected.items():
        np.testing.assert_allclose(out[name], value, rtol=1e-5, atol=2e-6, err_msg=name)
    each = ensemble.each(x)
    assert len(each) == ensemble.num_samples == 12
    np.testing.assert_allclose(np.stack([outputs[0] for outputs in each], 1), p, atol=1e-6)


def test_seeds():
    """A seed gives one answer, without a new trace; members of equal weights have different masks."""
    one = members(1)[0]
    ensemble, x = serving.Ensemble([one] * 3, num_samples=6, seed=3), images()
    first = {name: value.numpy() for name, value in ensemble(x).items()}
    runs = ensemble._passes._run
    p = np.stack([outputs[0] for outputs in ensemble.each(x)])
    assert (np.abs(p[:, None] - p).max((2, 3)) > 0).sum() == 30  # any two of the six samples differ
    ensemble.seed = 4
    assert not np.allclose(ensemble(x)["mean"], first["mean"])
    ensemble.seed = 3
    again = serving.Ensemble([one] * 3, num_samples=6, seed=3)(x)
    for name, value in ensemble(x).items():
        assert np.array_equal(value, first[name]) and np.array_equal(value, again[name])
    assert runs is ensemble._passes._run and runs.experimental_get_tracing_count() == 1
    alone = serving.Ensemble([one], num_samples=6, seed=3)(x)
    np.testing.assert_allclose(alone["mean"], serving.MonteCarlo(one, 6, seed=3)(x)["mean"], atol=1e-6)


def test_in_a_graph_and_for_batches_of_any_size():
    ensemble, x = serving.Ensemble(members(2), num_samples=4), images()
    out = ensemble(x)
    inside = tf.function(lambda images: ensemble.sample(images, plain=True))(tf.constant(x))
    for name, value in out.items():
        np.testing.assert_allclose(inside[name], value, atol=1e-6)
        np.testing.assert_allclose(ensemble(x[1:2])[name], value[1:2], atol=1e-6)
    assert ensemble(x[:0])["mean"].shape == (0, 4) and ensemble.each(x[:0])[3][0].shape == (0, 4)


def test_the_trunk_is_computed_once_and_members_one_after_another():
    ensemble = serving.Ensemble(members(2, dropout={"dense1": 0.5}), num_samples=8)
    ensemble(images())
    graph = ensemble._passes._run.get_concrete_function().graph
    assert len([each for each in graph.get_operations() if each.type == "Conv2D"]) == 2  # outside of the loops
    first, second = [each for each in graph.get_operations() if each.type.endswith("While")]
    assert first in ancestors(second)


def ancestors(operation):
    found, ahead = set(), [operation]
    while ahead:
        one = ahead.pop()
        before = [*one.control_inputs, *(x.op for x in one.inputs)]
        ahead += [each for each in before if each not in found]
        found.update(before)
    return found


def test_without_dropout_it_is_the_plain_ensemble():
    two, x = members(2), images()
    ensemble, plain = serving.Ensemble(two, num_samples=4), serving.Ensemble(two)
    assert plain.without_dropout is plain and plain.sampling is None and plain.num_samples == 2
    assert ensemble.sampling == "balanced" and [each.num_samples for each in ensemble.samplers] == [2, 2]
    for name, value in ensemble.without_dropout(x).items():
        assert np.array_equal(value, plain(x)[name])


def test_in_tiles():
    ensemble, x = serving.Ensemble([unet(), unet()], **TILES), images(1, (40, 44))[0]
    out, whole = serving.predict_tiled(ensemble, x, 32, 16), ensemble(x[None])
    for name, value in out.items():
        np.testing.assert_allclose(value, whole[name][0], atol=0.02)
    with pytest.raises(ValueError, match="the same dropout masks: use sampling='fixed'. Received: 'balanced'"):
        serving.predict_tiled(serving.Ensemble([unet()], num_samples=2), x, 32, 16)


class Net(keras.Model):
    """A model whose inputs are known after the first batch."""

    def __init__(self, rate):
        super().__init__()
        self.flat, self.dense = keras.layers.Flatten(), keras.layers.Dense(3, "softmax")
        self.drop = keras.layers.Dropout(rate) if rate else keras.layers.Identity()

    def call(self, x, training=None):
        return self.dense(self.drop(self.flat(x), training=training))


def test_subclassed_members():
    two, x = [Net(0.5), Net(0.5)], images()
    ensemble = serving.Ensemble(two, num_samples=4)
    with pytest.raises(ValueError, match="call it on one batch first"):
        ensemble.sample(tf.constant(x))
    p = samples_of(two, 2, "balanced", 0, x)
    np.testing.assert_allclose(ensemble(x)["mean"], p.mean(1), atol=1e-6)
    np.testing.assert_allclose(ensemble.sample(tf.constant(x))["mean"], p.mean(1), atol=1e-6)
    with pytest.raises(ValueError, match="no dropout in member number 2, 'net"):
        serving.Ensemble([Net(0.5), Net(0)], num_samples=4)(x)


REFUSED = {
    "a remainder": ({"num_samples": 20}, r"members, which is 3, .* pass 18 or 21. Received: num_samples=20"),
    "too few": ({"num_samples": 2}, "pass 3. Received: num_samples=2"),
    "auto": ({"num_samples": "auto"}, "must be a positive int. Received: num_samples='auto'"),
    "sampling": ({"num_samples": 3, "sampling": "fix"}, "Unknown sampling 'fix'. Did you mean 'fixed'"),
    "seed": ({"num_samples": 3, "seed": -1}, r"`seed` must be an int in \[0, 2\*\*32\)"),
    "sampling alone": ({"sampling": "fixed"}, "pass `num_samples` too, or leave them out"),
    "seed alone": ({"seed": 3}, "pass `num_samples` too, or leave them out"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        serving.Ensemble(members(), **options)


def test_a_member_without_dropout_is_refused():
    two = [*members(1), keras.models.clone_model(small_cnn(dropout=None))]
    with pytest.raises(ValueError, match="no dropout in member number 2.*models.retrofit, or leave `num_samples`"):
        serving.Ensemble(two, num_samples=4)
    plain = serving.Ensemble(two)
    with pytest.raises(ValueError, match="create it with `num_samples`. Received: seed=1"):
        plain.seed = 1
