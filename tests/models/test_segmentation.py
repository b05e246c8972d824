"""What is particular to the segmentation models, and their published sizes."""

import numpy as np
import pytest
import tensorflow as tf

from dropzoo import models
from dropzoo.models.segnet import MaxUnpooling2D


def trainable(name: str, **options) -> int:
    model = models.build_model(name, **options)
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def tiramisu(growth: int, *counts: int) -> int:
    """By hand, for 11 classes: biased convolutions, each behind a normalisation of two weights a channel."""
    total, channels, skips = 9 * 3 * 48 + 48, 48, []

    def block(count: int) -> None:
        nonlocal total, channels
        for _ in range(count):
            total += 2 * channels + 9 * channels * growth + growth
            channels += growth

    for count in counts[:-1]:
        block(count)
        skips.append(channels)
        total += 2 * channels + channels**2 + channels
    block(counts[-1])
    for i in range(len(counts) - 1, 0, -1):
        added = growth * counts[i]
        total += 9 * added**2 + added
        channels = added + skips.pop()
        block(counts[i - 1])
    return total + 11 * channels + 11


@pytest.mark.parametrize(
    ("name", "counted", "published"),
    [  # Jégou 2017, table 2; of the smallest the layers of its table 1 give fewer than it says
        ("fc_densenet56", tiramisu(12, 4, 4, 4, 4, 4, 4), 1.5e6),
        ("fc_densenet67", tiramisu(16, 5, 5, 5, 5, 5, 5), 3.5e6),
        pytest.param("fc_densenet103", tiramisu(16, 4, 5, 7, 10, 12, 15), 9.4e6, marks=pytest.mark.slow),
    ],
)
def test_fc_densenet_has_the_published_number_of_parameters(name, counted, published):
    assert trainable(name, num_classes=11) == counted
    assert counted == pytest.approx(published, rel=0.1)


def test_segnet_is_vgg16_and_its_mirror():
    """By hand: 26 convolutions with two normalisation weights a channel, the last of size 1 and biased."""
    down = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256), (256, 512)]
    down += [(512, 512)] * 5
    up = [(512, 512)] * 5 + [(512, 256), (256, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    expected = sum(9 * a * b + 2 * b for a, b in down + up) + 64 * 11 + 11
    assert trainable("segnet", num_classes=11) == expected


def test_unet_plus_plus_has_the_published_number_of_parameters():
    """9.04 M (Zhou 2018)."""
    assert trainable("unet_plus_plus") == pytest.approx(9.04e6, rel=1e-3)


def test_unet_plus_plus_has_a_node_for_every_level_and_column():
    names = [s.name for s in models.list_sites("unet_plus_plus", depth=3, filters=2)]
    nodes = [n.removesuffix("_conv2") for n in names if n.startswith("node") and n.endswith("_conv2")]
    assert sorted(nodes) == ["node1_1", "node1_2", "node1_3", "node2_1", "node2_2", "node3_1"]


def test_attention_unet_adds_its_gates_to_the_unet():
    gates = sum(
        skip * half + (deeper * half + half) + (half + 1)
        for skip, deeper in [(8, 16), (16, 32)]
        for half in [skip // 2]
    )
    options = {"depth": 2, "filters": 8}
    assert trainable("attention_unet", **options) == trainable("unet", **options) + gates


def test_unpooling_puts_the_maxima_back():
    x = np.random.default_rng(0).random((2, 6, 10, 3), "float32")
    pooled = tf.nn.max_pool2d(x, 2, 2, "VALID")
    y = MaxUnpooling2D()([pooled, x]).numpy()
    np.testing.assert_array_equal(y[y != 0], x[y != 0])
    np.testing.assert_array_equal(tf.nn.max_pool2d(y, 2, 2, "VALID"), pooled)
    assert (y != 0).sum() == pooled.numpy().size
    flat = MaxUnpooling2D()([np.ones((1, 1, 1, 1), "float32"), np.zeros((1, 2, 2, 1), "float32")])
    np.testing.assert_array_equal(flat[0, ..., 0], [[1, 0], [0, 0]])  # of equal ones the first


PLACES = {
    "bayesian_segnet": ["encoder2_pool", "encoder3_pool", "decoder1_conv1", "decoder2_conv1"],
    "bayesian_segnet_encoder": ["encoder1_pool", "encoder2_pool", "encoder3_pool"],
    "bayesian_segnet_decoder": ["decoder1_conv1", "decoder2_conv1", "decoder3_conv1"],
    "bayesian_segnet_center": ["encoder3_pool"],
    "bayesian_segnet_classifier": ["head"],
}


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize("plan", PLACES)
def test_bayesian_segnet_plans(plan):
    options = {"convs": (2, 1, 1), "filters": 2}
    placed = {s.name: s.spec for s in models.list_sites("segnet", dropout=plan, **options) if s.spec}
    assert placed == dict.fromkeys(PLACES[plan], "dropout:0.5")
    if plan == "bayesian_segnet":
        assert [s.name for s in models.list_sites("segnet", dropout="paper", **options) if s.spec] == PLACES[plan]


def test_fc_densenet_paper_drops_after_each_convolution_of_blocks_and_transitions():
    options = {"filters": 2, "growth_rate": 2, "layers_per_block": (1, 2)}
    names = [s.name for s in models.list_sites("fc_densenet103", dropout="paper", **options) if s.spec]
    assert names == ["encoder1_conv1", "encoder1_down", "bottleneck_conv1", "bottleneck_conv2", "decoder1_conv1"]
