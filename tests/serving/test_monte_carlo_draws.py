"""Monte-Carlo dropout: the random draws, their seeds and their rates."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from _small_cnn import SAMPLINGS, images, small_cnn
from dropzoo import layers, models, serving
from dropzoo.layers.draws import samples as _samples


def bits(num_samples: int, balanced: bool, rows: int = 3, units: int = 2000, plain: bool = True) -> np.ndarray:
    key = tf.constant([7, 9], tf.uint32)
    keys = tf.range(rows, dtype=tf.int64)
    draws = [
        _samples.sample_bits(
            (rows, units),
            key,
            tf.cast(keys, tf.uint32),
            tf.constant(t),
            num_samples,
            balanced=balanced,
            plain=plain,
        )
        for t in range(num_samples)
    ]
    return np.stack(draws).astype("uint64")  # (samples, rows, units)


@pytest.mark.parametrize("num_samples", [1, 2, 3, 7, 8, 30])
def test_balanced_bits_hit_each_stratum_once_and_each_sample_is_uniform(num_samples):
    drawn = bits(num_samples, balanced=True)
    strata = drawn * num_samples >> 32
    assert (np.sort(strata, axis=0) == np.arange(num_samples)[:, None, None]).all()
    for sample in drawn:
        assert stats.kstest(sample.ravel() / 2**32, "uniform").pvalue > 1e-4
        for shift in (24, 0):  # the high byte and the low one
            assert (
                stats.chisquare(np.bincount((sample.ravel() >> shift).astype("uint8"), minlength=256)).pvalue
                > 1e-4
            )


def test_balanced_samples_are_paired_at_random():
    """The strata of two samples are as unrelated as those of a random permutation: all pairs as often."""
    strata = bits(5, balanced=True, units=20_000) // (2**32 // 5)
    for t, u in [(0, 1), (0, 2), (1, 4), (3, 4)]:
        pairs = np.bincount((strata[t] * 5 + strata[u]).ravel().astype(int), minlength=25).reshape(5, 5)
        assert (pairs.diagonal() == 0).all()
        assert stats.chisquare(pairs[~np.eye(5, dtype=bool)]).pvalue > 1e-4


@pytest.mark.parametrize("balanced", [True, False])
def test_bits_compile_to_the_same(balanced):
    np.testing.assert_array_equal(bits(4, balanced, plain=True), bits(4, balanced, plain=False))


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("length", [6, 12, 15, 1])
def test_bits_of_windows_compile_to_the_same(length, balanced):
    """Six images, two in each of three samples, and a first axis that holds several rows for each image."""
    rows, sample = tf.constant([7, 9] * 3, tf.uint32), tf.constant([[0], [0], [1], [1], [2], [2]])
    given = (length, 50), tf.constant([1, 2], tf.uint32), rows, sample, 3
    plain, compiled = (_samples.sample_bits(*given, balanced=balanced, plain=p) for p in (True, False))
    np.testing.assert_array_equal(plain, compiled)
    if length == 12:
        assert len(np.unique(plain.numpy(), axis=0)) == 12


def test_independent_samples_rows_and_units_are_uncorrelated():
    drawn = (bits(8, balanced=False) / 2**32 - 0.5) * np.sqrt(12)
    limit = 5 / np.sqrt(drawn.size)
    for axis in range(3):
        assert abs((drawn * np.roll(drawn, 1, axis)).mean()) < limit


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_image_has_the_same_answer_in_any_batch(sampling):
    model = small_cnn()
    mc = serving.MonteCarlo(model, num_samples=4, sampling=sampling)
    x = images()
    whole = mc(x)
    for name, part in mc(x[[3, 1]]).items():
        np.testing.assert_allclose(part, tf.gather(whole[name], [3, 1]), atol=1e-6)
    twin = mc(np.repeat(x[:1], 2, axis=0))["mean"]
    np.testing.assert_allclose(twin[0], twin[1], atol=1e-6)


def test_fixed_masks_are_shared_and_the_others_are_not():
    inputs = keras.Input((400,))
    model = keras.Model(inputs, layers.Dropout(0.5, name="site")(inputs))
    for sampling in SAMPLINGS:
        mc = serving.MonteCarlo(model, num_samples=1, sampling=sampling)
        dropped = mc(np.stack([np.full(400, 30.0), np.full(400, 40.0)]))["mean"].numpy() < 1e-6
        assert np.array_equal(*dropped) == (sampling == "fixed")
        assert abs(dropped.mean() - 0.5) < 5 * np.sqrt(0.25 / 400)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_seeds(sampling):
    model = small_cnn()
    mc = serving.MonteCarlo(model, num_samples=3, sampling=sampling, seed=5)
    x = images()
    first = mc(x)["mean"].numpy()
    np.testing.assert_array_equal(mc(x)["mean"], first)
    other = mc(x, seed=6)["mean"]
    assert not np.allclose(first, other)
    mc.seed = 6
    with pytest.raises(ValueError, match="`seed` must be"):
        mc.seed = -1
    np.testing.assert_array_equal(mc(x)["mean"], other)
    assert mc._run.experimental_get_tracing_count() == 1
    np.testing.assert_array_equal(serving.MonteCarlo(model, 3, sampling, seed=5)(x)["mean"], first)


@pytest.mark.costly(keep=0)
def test_balanced_masks_lower_the_error_of_the_mean():
    """The squared error at T = 8 against a reference of 1,000 samples, over two sets of initial weights.

    The gain is in the part of the answer that is additive in the units: 2.3 here, and 1.4 with weights so large
    that each sample is nearly one-hot, for a true random permutation as for ours.
    """
    error, x = {"independent": 0.0, "balanced": 0.0}, images(16)
    for weights_seed in (1, 2):
        model = small_cnn({"module1": 0.2, "features": 0.25, "dense1": 0.5}, weights_seed=weights_seed, scale=1.0)
        reference = serving.MonteCarlo(model, 1000, "independent", seed=99)(x)["mean"]
        for sampling in error:
            mc = serving.MonteCarlo(model, 8, sampling)
            error[sampling] += np.mean([(mc(x, seed=s)["mean"] - reference) ** 2 for s in range(12)])
    assert error["independent"] > 1.5 * error["balanced"]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_each_site_drops_at_its_rate(sampling):
    inputs = keras.Input((2000,))
    model = keras.Model(inputs, layers.Dropout(0.25, name="b_dropout")(layers.Dropout(0.7, name="a")(inputs)))
    mc = serving.MonteCarlo(model, num_samples=10, sampling=sampling)
    ones, rows, seed = tf.ones((1, 2000)), tf.constant([5], tf.uint32), tf.constant(0, tf.int64)
    masks = []
    for active, rate in zip(mc.stage.active, (0.7, 0.25), strict=True):
        samples = [
            active.sample(ones, mc._graph.draw(active.stream, seed, rows, tf.constant(t), plain=True))
            for t in range(10)
        ]
        dropped = np.stack(samples)[:, 0] == 0  # (samples, units)
        assert (abs(dropped.mean(1) - rate) < 5 * np.sqrt(rate * (1 - rate) / 2000)).all()
        if sampling == "balanced":  # each unit as evenly as ten samples can be
            assert (abs(dropped.sum(0) - 10 * rate) < 1 - 1e-6).all()
        masks.append(dropped.ravel())
    assert abs(np.corrcoef(*masks)[0, 1]) < 5 / np.sqrt(masks[0].size)


def test_layers_of_one_name_in_two_nested_models_all_drop_and_differ():
    inputs = keras.Input((400,))
    branches = [
        keras.Sequential(
            [keras.Input((400,)), keras.layers.ReLU(name="same"), layers.Dropout(0.5, name="same_dropout")],
            name=name,
        )(inputs)
        for name in ("left", "right")
    ]
    model = keras.Model(inputs, keras.layers.Concatenate()(branches))

    def dropped(sites):
        out = serving.MonteCarlo(model, num_samples=1, sites=sites, task="regression")(np.ones((1, 400)))
        return np.split(out["mean"].numpy()[0] == 0, 2)

    for sites in (None, {"same": True}, {"*/same": True}):
        left, right = dropped(sites)
        for each in (left, right, left == right):
            assert abs(each.mean() - 0.5) < 5 * np.sqrt(0.25 / 400)
    # By the name that `list_sites` gives it, each can be on alone, with the masks that it has beside the other.
    assert [site.name for site in models.list_sites(model) if site.spec] == ["left/same", "right/same"]
    np.testing.assert_array_equal(dropped({"left/same": True}), [left, np.zeros(400, bool)])
    np.testing.assert_array_equal(dropped({"right/same": True}), [np.zeros(400, bool), right])
    np.testing.assert_array_equal(
        dropped({"right/same_dropout": True, "l*/same": 0.0}), [np.zeros(400, bool), right]
    )
