"""Full-size models against published or hand-counted numbers, and their papers' dropout where it belongs."""

import keras
import numpy as np
import pytest

from dropzoo import models


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


def vgg(convs: tuple[int, ...], dense: tuple[int, ...], features: int) -> int:
    """By hand: biased 3x3 convolutions of 64 to 512 channels, then dense layers, without normalisation."""
    total, channels = 0, 3
    for stage, count in enumerate(convs):
        for _ in range(count):
            width = min(64 * 2**stage, 512)
            total, channels = total + 9 * channels * width + width, width
    for units in dense:
        total, features = total + features * units + units, units
    return total


IMAGENET = {"input_shape": (224, 224, 3), "num_classes": 1000, "head": "imagenet", "normalization": None}
PUBLISHED = [
    # LeCun 1998 with full connections, counted layer by layer: 156 + 2416 + 48120 + 10164 + 850
    ("lenet5", {}, 61_706),
    # by hand, from the table of Springenberg 2015; the paper says about 1.4 M
    (
        "all_cnn_c",
        {},
        sum(k * k * a * b + b for k, a, b in [(3, 3, 96), (3, 96, 96), (3, 96, 96), (3, 96, 192), (3, 192, 192)])
        + sum(k * k * a * b + b for k, a, b in [(3, 192, 192), (3, 192, 192), (1, 192, 192), (1, 192, 10)]),
    ),
    # by hand: 14592 + 30880 + 15456, 460992 + 2 x 37056, 331968 + 37056 + 1930
    ("network_in_network", {}, 966_986),
    # He 2016: 0.27, 0.46, 0.66, 0.85 and 1.7 M; by hand 6 n convolutions of 9 c c' and two normalisation weights
    ("resnet20", {}, 269_722),
    ("resnet32", {}, 464_154),
    ("resnet44", {}, 658_586),
    ("resnet56", {}, 853_018),
    pytest.param("resnet110", {}, 1_727_962, marks=pytest.mark.slow),
    # Zagoruyko 2016: 11.0 M and 36.5 M
    ("wide_resnet_16_8", {}, 10_961_370),
    ("wide_resnet_28_10", {}, 36_479_194),
    # Huang 2017: 0.8 M
    ("densenet_bc_100_12", {}, 769_162),
    # Liu 2022: 28.6 M
    ("convnext_tiny", {"input_shape": (None, None, 3)}, 28_589_128),
    # Simonyan 2015: 133 M, 133 M, 138 M, 144 M
    pytest.param("vgg11", IMAGENET, 132_863_336, marks=pytest.mark.slow),
    pytest.param("vgg13", IMAGENET, 133_047_848, marks=pytest.mark.slow),
    pytest.param("vgg16", IMAGENET, 138_357_544, marks=pytest.mark.slow),
    pytest.param("vgg19", IMAGENET, 143_667_240, marks=pytest.mark.slow),
    ("vgg11", {"normalization": None}, vgg((1, 1, 2, 2, 2), (512, 10), 512)),
    ("vgg19", {"normalization": None}, vgg((2, 2, 4, 4, 4), (512, 10), 512)),
]


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(("name", "options", "count"), PUBLISHED)
def test_parameters(name, options, count):
    assert trainable(models.build_model(name, **options)) == count


@pytest.mark.costly(keep=3)
@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("resnet20", {"filters": 4, "blocks": 1}, (None, 8, 8, 16)),
        ("wide_resnet_16_8", {"filters": 2, "width": 2, "blocks": 1}, (None, 8, 8, 16)),
        ("vgg13", {"filters": 2, "convs": (1, 1)}, (None, 8, 8, 4)),
        ("all_cnn_c", {"filters": 4}, (None, 8, 8, 8)),
        ("network_in_network", {"filters": 6}, (None, 8, 8, 6)),
        ("densenet_bc_100_12", {"growth_rate": 2, "layers_per_block": 1}, (None, 8, 8, 4)),
        ("convnext_tiny", {"filters": 4, "blocks": (1, 1), "input_shape": (32, 32, 3)}, (None, 4, 4, 8)),
    ],
)
def test_without_the_top_the_features_remain(name, options, shape):
    for dropout in (None, "paper", 0.2, {"*_*": 0.1}):
        model = models.build_model(name, include_top=False, dropout=dropout, **options)
        assert model.output_shape == shape
    assert "head" not in {site.name for site in models.list_sites(model)}
    keras.utils.set_random_seed(1)
    assert model(np.ones((1, 32, 32, 3), "float32")).shape[1:] == shape[1:]


def test_a_paper_that_drops_in_the_top_alone_says_so_without_it():
    with pytest.raises(ValueError, match="This model has none of the sites where its paper puts dropout"):
        models.build_model("vgg11", head="imagenet", include_top=False, dropout="paper", filters=2)
    assert models.build_model("vgg11", include_top=False, num_classes=0, filters=2).output_shape[-1] == 16


def placed(name: str, **options) -> dict[str, str]:
    return {s.name: s.spec for s in models.list_sites(name, dropout="paper", **options) if s.spec}


def test_papers_have_their_dropout_where_they_put_it():
    assert placed("all_cnn_c", filters=4) == {
        "input": "dropout:0.2",
        "module1": "dropout:0.5",
        "module2": "dropout:0.5",
    }
    assert placed("network_in_network", filters=4) == {"module1": "dropout:0.5", "module2": "dropout:0.5"}
    assert placed("lenet5") == {"dense1": "dropout:0.5", "dense2": "dropout:0.5"}
    assert placed("vgg16", filters=2) == {
        "stage1_conv1": "dropout:0.3",
        **dict.fromkeys(["stage2_conv1", "stage3_conv1", "stage3_conv2", "stage4_conv1"], "dropout:0.4"),
        **dict.fromkeys(["stage4_conv2", "stage5_conv1", "stage5_conv2"], "dropout:0.4"),
        **dict.fromkeys(["features", "dense1"], "dropout:0.5"),
    }
    wide = placed("wide_resnet_16_8", filters=2, width=1)
    assert wide == {f"stage{s}_block{b}_conv1": "dropout:0.3" for s in (1, 2, 3) for b in (1, 2)}
    dense = placed("densenet_bc_100_12", growth_rate=2, layers_per_block=1)
    assert "conv1" not in dense and len(dense) == 8 and set(dense.values()) == {"dropout:0.2"}


def test_residual_papers_drop_deeper_branches_more_often():
    depth = placed("resnet20", filters=2)
    assert list(depth) == [f"stage{s}_block{b}_branch" for s in (1, 2, 3) for b in (1, 2, 3)]
    rates = [float(spec.partition(":")[2]) for spec in depth.values()]
    np.testing.assert_allclose(rates, 0.5 * np.arange(1, 10) / 9, rtol=1e-3)
    rates = [float(s.partition(":")[2]) for s in placed("convnext_tiny", filters=2, blocks=(1, 1, 3)).values()]
    np.testing.assert_allclose(rates, [0, 0.025, 0.05, 0.075, 0.1], rtol=1e-3)


def test_drop_block_stands_in_the_last_two_stages():
    sites = models.list_sites("resnet20", filters=2, blocks=1, dropout="drop_block")
    assert {s.name.partition("_")[0] for s in sites if s.spec} == {"stage2", "stage3"}


def test_a_block_whose_branch_is_dropped_is_its_shortcut():
    plan = {"stage1_block2_branch": "drop_path:0.999"}
    model = models.build_model("resnet20", input_shape=(12, 10, 3), filters=4, blocks=2, dropout=plan)
    x = np.random.default_rng(0).random((3, 12, 10, 3), "float32")
    names = ("stage1_block1", "stage1_block2")
    inside = keras.Model(model.input, [model.get_layer(name).output for name in names])
    before, after = inside(x, training=True)
    np.testing.assert_array_equal(before, after)
