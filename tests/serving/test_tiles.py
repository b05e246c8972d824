"""Tiles of a large image, blended: as if the image had been seen whole, and without seams."""

import keras
import numpy as np
import pytest

from _small_cnn import images, small_cnn
from dropzoo import layers, models, serving
from dropzoo.serving.montecarlo.blending import place

kl = keras.layers


def net(channels=3, size=(None, None), convs=3, dropout=None, scale=4.0):
    """A pixel sees `convs` pixels to each side."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((*size, 1))
    for _ in range(convs):
        x = kl.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = (dropout or layers.SpatialDropout2D(0.5, name="site"))(x)
    x = kl.Conv2D(channels, 1)(x)
    return keras.Model(inputs, x * scale)


def fixed(model, num_samples=5, **options):
    return serving.MonteCarlo(model, num_samples, "fixed", **options)


@pytest.mark.covering("figures", "sizes")
@pytest.mark.parametrize("sizes", [((70, 53), 32), ((70, 53), (32, 24)), ((20, 90), 32), ((9, 7), 32)], ids=str)
@pytest.mark.parametrize(
    "figures", [("multi_class", 3), ("multi_class", 1), ("multi_label", 3), ("regression", 2)], ids=str
)
def test_tiles_are_the_whole_image(sizes, figures):
    """Everywhere, at the image's borders too: a pixel sees 3 pixels to each side, an outer quarter is 3."""
    (size, tile), (task, channels) = sizes, figures
    mc = fixed(net(channels), task=task)
    image = images(1, size)[0]
    out, whole = serving.predict_tiled(mc, image, tile, 12, batch_size=3), mc(image[None])
    assert list(out) == list(whole)
    assert out["variance"].max() > 1e-3
    for name, value in out.items():
        assert isinstance(value, np.ndarray) and value.dtype == "float32"
        np.testing.assert_allclose(value, whole[name][0], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("tile", [8, 9, 32])
@pytest.mark.parametrize("overlap", [0, 1, 2, 3, 4])
def test_the_weights_sum_to_one_and_the_outer_quarters_have_none(tile, overlap):
    for size in range(1, 100):
        length = min(size, tile)
        starts, weights = place(size, length, overlap)
        np.testing.assert_allclose(weights.sum(0), 1.0, rtol=1e-12)
        assert weights.min() >= 0.0
        assert starts[0] == 0 and starts[-1] + length == size and len(set(starts)) == len(starts)
        for i, start in enumerate(starts):
            inside = np.zeros(size, bool)
            inside[
                start + (overlap // 4 if i else 0) : start + length - (overlap // 4 if i < len(starts) - 1 else 0)
            ] = 1
            np.testing.assert_array_equal(weights[i] > 0, inside)
            assert i == 0 or starts[i - 1] + length - start >= overlap


def jumps(values, axis):
    """The mean absolute difference of neighbours, by where they are along an axis."""
    across = tuple(i for i in range(values.ndim) if i != axis)
    return np.abs(np.diff(values.astype("float64"), axis=axis)).mean(across)


def test_no_seams_on_a_flat_image():
    """Of which every figure is flat but for the image's own borders; without overlap the tiles' padding shows."""
    mc, image = fixed(net()), np.full((100, 90, 1), 0.7, "float32")
    out, cut = (serving.predict_tiled(mc, image, 40, overlap) for overlap in (16, 0))
    for name, value in out.items():
        for axis in (0, 1):
            assert jumps(value[4:-4, 4:-4], axis).max() < 1e-6, name
            assert jumps(cut[name][4:-4, 4:-4], axis).max() > 1e-3, name
    out = serving.predict_tiled(mc, image, 40, (0, 16))  # none along the first axis only
    assert jumps(out["mean"][4:-4, 4:-4], 1).max() < 1e-6 < 1e-3 < jumps(out["mean"][4:-4, 4:-4], 0).max()


def test_no_seams_with_masks_of_single_units():
    """On noise, which is alike everywhere, the rows of differences where tiles begin or end are as the others."""
    mc = fixed(net(dropout=layers.Dropout(0.5, name="site")), 16)
    image, tile = images(1, (200, 190))[0], 40
    starts = np.array(place(200, tile, 16)[0])
    seams = np.concatenate([starts[1:] - 1, starts[:-1] + tile - 1])
    for name, value in serving.predict_tiled(mc, image, tile, 16).items():
        rows = jumps(value, 0)
        others = np.delete(rows, seams)[4:-4]  # nor the image's own borders
        assert rows[seams].max() <= others.max(), name
        assert 0.9 < rows[seams].mean() / others.mean() < 1.1, name


def test_unet():
    """Exact too: a margin of 12 is more than it sees, and tiles at even places pool the same pixels."""
    plan = {"bottleneck*": "spatial_dropout2d:0.5"}
    model = models.build_model(
        "unet", input_shape=(None, None, 1), num_classes=3, depth=1, filters=4, dropout=plan
    )
    mc, image = fixed(model), images(1, (144, 70))[0]
    whole = mc(image[None])
    on, off = (serving.predict_tiled(mc, image, *sizes) for sizes in ((96, 48), (95, 47)))
    for name, value in on.items():
        np.testing.assert_allclose(value, whole[name][0], atol=1e-5, err_msg=name)
    assert np.abs(off["mean"] - whole["mean"][0]).max() > 1e-4


def test_a_model_of_fixed_size():
    mc = fixed(net(size=(16, 24), convs=2))
    whole = fixed(net(convs=2))
    for size in [(40, 50), (16, 24), (10, 50), (5, 3)]:
        image = images(1, size)[0]
        out = serving.predict_tiled(mc, image, (16, 24), 8)
        missing = [(0, max(0, n - m)) for n, m in zip((16, 24), size, strict=True)]
        mirrored = np.pad(image, [*missing, (0, 0)], mode="symmetric")
        expected = whole(mirrored[None])["mean"][0, : size[0], : size[1]]
        np.testing.assert_allclose(out["mean"], expected, atol=1e-5)
    with pytest.raises(ValueError, match="must be the model's size, .16, 24.. Received: tile=.256, 256."):
        serving.predict_tiled(mc, images(1, (40, 50))[0])


def test_the_model_sees_a_batch_of_tiles_at_a_time(monkeypatch):
    shapes, call = [], serving.MonteCarlo.__call__
    monkeypatch.setattr(serving.MonteCarlo, "__call__", lambda mc, x: shapes.append(x.shape) or call(mc, x))
    serving.predict_tiled(fixed(net()), images(1, (60, 20))[0], 24, 8, batch_size=3)
    assert shapes == [(3, 24, 20, 1), (1, 24, 20, 1)]


def test_memory_maps_are_read_tile_by_tile(tmp_path):
    image = images(1, (50, 60))[0]
    np.save(tmp_path / "image.npy", image)
    mapped = np.load(tmp_path / "image.npy", mmap_mode="r")
    mc = fixed(net())
    for name, value in serving.predict_tiled(mc, image, 24, 8).items():
        np.testing.assert_array_equal(serving.predict_tiled(mc, mapped, 24, 8)[name], value)


def test_bad_input():
    image, mc = images(1, (40, 40))[0], fixed(net())
    tiled = serving.predict_tiled
    with pytest.raises(ValueError, match="same dropout masks: .*sampling='fixed'.*Received: 'balanced'"):
        tiled(serving.MonteCarlo(net()), image)
    with pytest.raises(ValueError, match="fixed number of samples.*num_samples='auto'"):
        tiled(serving.MonteCarlo(net(), "auto", "fixed"), image)
    with pytest.raises(ValueError, match="return_samples=True"):
        tiled(fixed(net(), return_samples=True), image)
    with pytest.raises(ValueError, match="must be a MonteCarlo.* Received: <Functional"):
        tiled(net(), image)
    with pytest.raises(ValueError, match="images and returns maps.*and returns .None, 4."):
        tiled(fixed(small_cnn()), image)
    with pytest.raises(
        ValueError, match=r"`image` must have the shape \(height, width, 1\). Received: \(1, 40, 40, 1\)"
    ):
        tiled(mc, image[None])
    with pytest.raises(ValueError, match=r"Received: \(0, 40, 1\)"):
        tiled(mc, image[:0])
    with pytest.raises(ValueError, match="`tile` must be a positive int"):
        tiled(mc, image, tile=0)
    with pytest.raises(ValueError, match=r"half of the tile, \(16, 16\). Received: overlap=9"):
        tiled(mc, image, tile=16, overlap=9)
    with pytest.raises(ValueError, match="`overlap` must be an int of at least 0, or 2 of them"):
        tiled(mc, image, overlap=-1)
    with pytest.raises(ValueError, match="`batch_size` must be a positive int. Received: batch_size=0"):
        tiled(mc, image, batch_size=0)
    inputs = keras.Input((None, None, 1))
    small = keras.Model(inputs, kl.Conv2D(2, 3, strides=2)(layers.Dropout(0.5)(inputs)))
    with pytest.raises(
        ValueError, match="height and width of the images: add .*Received: .19, 19. for images of .40, 40."
    ):
        tiled(fixed(small), image)
