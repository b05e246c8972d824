"""Corruptions: the same for the same image, in range, worse with each severity, on images of any shape."""

import numpy as np
import pytest
import tensorflow as tf

from dropzoo.training.data.corruptions import CORRUPTIONS, corrupt, list_corruptions
from dropzoo.training.data.load import load_data

every = pytest.mark.parametrize("name", list_corruptions())
SHAPES = [(4, 8, 8, 1), (2, 28, 28, 1), (3, 22, 30, 3), (2, 30, 17, 4), (1, 96, 64, 3)]
TINY = [(3, 1, 1, 1), (2, 1, 9, 1), (2, 2, 3, 3), (0, 8, 8, 1)]
RANDOM = ("gaussian_noise", "occlusion", "missing_patches")


def images(shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype("float32")


def change(name, severity, batch):
    return float(np.mean(np.square(corrupt(batch, name, severity) - batch)))


def test_there_are_six_of_five_severities():
    assert sorted(CORRUPTIONS) == list_corruptions() and len(CORRUPTIONS) == 6
    assert all(len(strengths) == 5 for _, strengths in CORRUPTIONS.values())


@pytest.mark.costly(keep=3)
@every
@pytest.mark.parametrize("shape", SHAPES + TINY)
def test_shape_range_and_order_of_severities(name, shape):
    batch = images(shape)
    changes = []
    for severity in range(1, 6):
        worse = corrupt(batch, name, severity)
        assert worse.shape == shape and worse.dtype == tf.float32
        assert np.all((worse >= 0) & (worse <= 1))  # NaN is not
        changes.append(np.mean(np.square(worse - batch), (1, 2, 3)))
    steps = np.diff(changes, axis=0)  # image by image
    assert np.all(steps >= -1e-7)
    if shape in SHAPES:
        assert np.all(np.mean(changes, 1)[1:] > np.mean(changes, 1)[:-1]) and np.mean(changes[0]) > 1e-5


@pytest.mark.costly(keep=3)
@every
def test_severities_are_in_order_on_real_digits(name):
    batch, _ = next(iter(load_data("digits", batch_size=256).test))
    changes = [change(name, severity, batch) for severity in range(1, 6)]
    assert np.all(np.diff(changes) > 0) and 1e-4 < changes[0] < changes[4] < 0.3


@every
def test_it_depends_on_the_image_and_the_seed_alone(name):
    batch = images((5, 12, 10, 1))
    whole = corrupt(batch, name, 3, seed=7)
    assert np.array_equal(whole, corrupt(batch, name, 3, seed=7))
    turned = corrupt(batch[::-1], name, 3, seed=7)[::-1]
    alone = np.concatenate([corrupt(batch[i : i + 1], name, 3, seed=7) for i in range(5)])
    np.testing.assert_allclose(turned, whole, atol=1e-6)
    np.testing.assert_allclose(alone, whole, atol=1e-6)
    other = corrupt(batch, name, 3, seed=8)
    assert np.array_equal(other, whole) == (name not in RANDOM)


@pytest.mark.costly(keep=3)
@every
def test_in_graphs_and_pipelines_of_unknown_size(name):
    spec = tf.TensorSpec([None, None, None, None])
    function = tf.function(lambda x: corrupt(x, name, 4), input_signature=[spec])
    for shape in (*SHAPES, TINY[2]):
        np.testing.assert_allclose(function(images(shape)), corrupt(images(shape), name, 4), atol=1e-6)
    dataset = tf.data.Dataset.from_tensor_slices(images((5, 9, 8, 1))).batch(2)
    mapped = list(dataset.map(lambda x: corrupt(x, name, 4)))
    assert [x.shape[0] for x in mapped] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(mapped), corrupt(images((5, 9, 8, 1)), name, 4), atol=1e-6)


@every
def test_other_floating_dtypes_are_kept(name):
    for dtype in ("float16", "bfloat16", "float64"):
        worse = corrupt(tf.cast(images((2, 8, 8, 1)), dtype), name, 2)
        assert worse.dtype == dtype and np.all((worse >= 0) & (worse <= 1))


def test_what_each_does():
    batch = images((64, 32, 24, 3))
    noise = corrupt(np.full((64, 32, 24, 3), 0.5, "float32") + batch[:, :1, :1] * 1e-3, "gaussian_noise", 2) - 0.5
    assert float(np.std(noise)) == pytest.approx(0.1, rel=0.02) and abs(float(np.mean(noise))) < 2e-3
    flat = np.full((1, 9, 40, 3), 0.3, "float32")
    np.testing.assert_allclose(corrupt(flat, "blur", 5), flat, atol=1e-6)  # the edges keep their weight
    point = np.zeros((1, 41, 41, 1), "float32")
    point[0, 20, 20] = 1
    spread = corrupt(point, "blur", 3)[0, :, :, 0]
    place = np.arange(41) - 20
    assert float(np.sum(spread)) == pytest.approx(1, abs=1e-4)
    variance = float(np.sum(spread * place[:, None] ** 2))
    assert variance == pytest.approx((0.35 * 41**0.5) ** 2, rel=1e-3)
    paler = corrupt(batch, "contrast", 3)
    assert float(np.std(paler[0])) == pytest.approx(0.4 * batch[0].std(), rel=1e-2)
    np.testing.assert_allclose(np.mean(paler, (1, 2)), batch.mean((1, 2)), atol=1e-5)
    dark, bright = 0.4 * batch, 1 - 0.4 * batch
    np.testing.assert_allclose(corrupt(dark, "brightness", 2), dark + 0.2, atol=1e-6)
    np.testing.assert_allclose(corrupt(bright, "brightness", 2), bright - 0.2, atol=1e-6)


def test_the_square_is_one_and_whole_and_the_patches_are_as_many_as_said():
    batch = images((64, 32, 24, 1)) + 1e-3
    starts = set()
    for i, hidden in enumerate(corrupt(batch, "occlusion", 3) == 0.5):
        rows, columns = np.nonzero(np.any(hidden[..., 0], 1))[0], np.nonzero(np.any(hidden[..., 0], 0))[0]
        assert len(rows) == len(columns) == 12 and np.sum(hidden) == 144, i
        starts.add((rows[0], columns[0]))
    assert len(starts) > 40 and min(r for r, _ in starts) <= 2 and 18 <= max(r for r, _ in starts) <= 20
    lost = np.mean(corrupt(batch, "missing_patches", 3) == 0, (1, 2, 3))
    np.testing.assert_allclose(lost, round(0.3 * 11 * 8) / 88, atol=0.03)  # the last row of patches is cut
    patches = corrupt(batch[:, :24], "missing_patches", 3) == 0
    blocks = np.reshape(patches, (64, 8, 3, 8, 3))
    assert np.all(blocks.all((2, 4)) == blocks.any((2, 4))) and np.all(blocks.all((2, 4)).sum((1, 2)) == 19)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "blurr"}, "Unknown corruption 'blurr'. Did you mean 'blur'"),
        ({"severity": 0}, "`severity` must be one of 1, 2, 3, 4, 5. Received: severity=0"),
        ({"severity": True}, "severity=True"),
        ({"severity": 2.0}, "severity=2.0"),
        ({"severity": 6}, "severity=6"),
        ({"seed": -1}, "seed=-1"),
        ({"images": np.zeros((8, 8, 1), "float32")}, r"Received: float32 of shape \(8, 8, 1\)"),
        ({"images": np.zeros((1, 8, 8, 1), "uint8")}, "Received: uint8"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        corrupt(**{"images": images((1, 8, 8, 1)), "name": "blur", "severity": 1, **arguments})
