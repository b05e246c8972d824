"""Monte-Carlo dropout: as many samples as it takes."""

import numpy as np
import pytest
import tensorflow as tf

from _small_cnn import SAMPLINGS, images, small_cnn
from dropzoo import serving
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.statistics import Sums, sum_until


@pytest.fixture(scope="module")
def reference():
    return serving.MonteCarlo(small_cnn(scale=1.0), 3000, "independent", seed=9)(images(5))["mean"].numpy()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_as_many_samples_as_it_takes(sampling, reference):
    model, x = small_cnn(scale=1.0), images(5)
    few, many = (
        serving.MonteCarlo(model, "auto", sampling, tolerance=tolerance, max_samples=400)(x)
        for tolerance in (0.03, 0.01)
    )
    assert few["num_samples"].shape == (5,) and few["num_samples"].dtype == tf.int32
    assert (few["num_samples"].numpy() % 8 == 0).all() and (few["num_samples"].numpy() >= 8).all()
    assert few["num_samples"].numpy().mean() < many["num_samples"].numpy().mean() < 400
    error = lambda out: np.sqrt(((out["mean"] - reference) ** 2).numpy().mean(-1)).mean()  # noqa: E731
    assert error(many) < 0.01 * 1.5 and error(few) < 0.03 * 1.5


@pytest.mark.parametrize("sampling", ["independent", "fixed"])
def test_at_the_most_samples_it_is_as_with_that_number(sampling):
    model, x = small_cnn(), images(5)
    out = dict(serving.MonteCarlo(model, "auto", sampling, tolerance=0, max_samples=24)(x))
    np.testing.assert_array_equal(out.pop("num_samples"), 24)
    for key, value in serving.MonteCarlo(model, 24, sampling)(x).items():
        np.testing.assert_allclose(out[key], value, atol=1e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_an_image_takes_the_same_samples_in_any_batch(sampling):
    model, x = small_cnn(), images(6)
    mc = serving.MonteCarlo(model, "auto", sampling, tolerance=0.03, max_samples=200)
    whole = mc(x)
    assert len(set(whole["num_samples"].numpy())) > 1
    for rows in ([3, 1], [0]):
        for key, value in mc(x[rows]).items():
            np.testing.assert_allclose(value, tf.gather(whole[key], rows), atol=1e-5)


def test_groups_of_balanced_samples_differ_and_need_fewer():
    model, x = small_cnn({"dense1": 0.5}, scale=1.0), images(8)
    taken = {
        sampling: serving.MonteCarlo(model, "auto", sampling, tolerance=0.004, max_samples=800)(x)["num_samples"]
        for sampling in ("balanced", "independent")
    }
    assert taken["balanced"].numpy().mean() < 0.8 * taken["independent"].numpy().mean()
    assert taken["balanced"].numpy().min() > 8  # the same masks in each group would look certain at once


@pytest.mark.parametrize(("stratified", "count"), [(True, 32), (False, 48)])
def test_equal_means_of_four_stratified_groups_are_enough(stratified, count):
    """Groups of 8 coins, always four of each: the samples vary, the means of the groups do not."""
    group = Sums(tf.fill([2, 1], 4.0), tf.fill([2, 1], 4.0), tf.zeros([2]))
    outputs = [Output("coin", (None, 1), "multi_class")]
    (sums,), found = sum_until(lambda _: [group], 8, 6, [0.01], 2, outputs, stratified)
    assert found.numpy().tolist() == [count] * 2
    np.testing.assert_allclose(sums.p, count / 2)
