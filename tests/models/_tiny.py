"""A small variant of every model, for the contract tests."""

from dataclasses import dataclass, field
from typing import Any

import keras

from dropzoo import models


@dataclass(frozen=True)
class Tiny:
    """A small variant of a model, two image sizes it must take, and bad options beside the good ones."""

    options: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    plans: tuple[str, ...]
    dense_output: bool  # logits for each pixel
    normalizations: tuple[str | None, ...] = ("batch", "group", "layer", None)  # those that are fitted
    wrong: tuple[tuple[dict[str, Any], str], ...] = field(default=())


CNN = {"input_shape": (None, None, 1), "filters": (4, 6), "dense": (5,), "head": "average_pool", "num_classes": 3}
TINY = {
    "simple_cnn": Tiny(
        CNN,
        sizes=((9, 14), (4, 5)),
        plans=("none", "paper", "head", "between_modules"),
        dense_output=False,
        wrong=(
            ({"downsample": "mean_pool"}, "`downsample` must be one of 'max_pool'"),
            ({"head": "flat"}, "`head` must be one of"),
            ({"head": "flatten"}, "`head='flatten'` needs images of a fixed size"),
            ({"filters": ()}, "`filters` must be a tuple"),
            ({"filters": (4, 0)}, "filters=0"),
            ({"convs_per_module": (1, 2, 3)}, "one for each of the 2 modules"),
            ({"convs_per_module": 0}, "convs_per_module=0"),
            ({"downsample": "valid", "strides": 2}, "`strides` or another `padding` cannot be passed"),
            ({"downsample": "valid", "padding": "same"}, "`strides` or another `padding` cannot be passed"),
            ({"dense": (0,)}, "dense=0"),
        ),
    ),
    "unet": Tiny(
        {"input_shape": (None, None, 1), "depth": 2, "filters": 4, "num_classes": 3},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "head", "between_modules", "unet_2015", "bayesian_segnet"),
        dense_output=True,
        wrong=(
            ({"depth": 0}, "`depth` must be a positive int"),
            ({"filters": 2.5}, "`filters` must be a positive int"),
            ({"upsample": "nearest"}, "`upsample` must be one of 'transpose', 'resize'"),
        ),
    ),
}
DEEP: Any = {"dense_output": False, "normalizations": ("batch", None)}
COLOURLESS = {"input_shape": (None, None, 1), "num_classes": 3}
TINY |= {
    "lenet5": Tiny(
        COLOURLESS | {"filters": (3, 4), "dense": (6, 5), "head": "average_pool"},
        sizes=((9, 14), (4, 5)),
        plans=("none", "paper", "head", "between_modules", "filter_wise"),
        wrong=(({"filters": (0,)}, "filters=0"),),
        **DEEP,
    ),
    "all_cnn_c": Tiny(
        COLOURLESS | {"filters": 4},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "between_modules", "filter_wise", "drop_block"),
        wrong=(({"filters": 0}, "filters=0"),),
        **DEEP,
    ),
    "network_in_network": Tiny(
        COLOURLESS | {"filters": 6},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "between_modules", "filter_wise", "drop_block"),
        wrong=(({"filters": 0}, "filters=0"),),
        **DEEP,
    ),
    "vgg16": Tiny(
        COLOURLESS | {"filters": 4, "convs": (1, 2)},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "head", "between_modules", "filter_wise", "drop_block"),
        wrong=(
            ({"filters": 0}, "filters=0"),
            ({"convs": ()}, "`convs` must be a tuple"),
            ({"convs": (1, 0)}, "convs=0"),
            ({"head": "flatten"}, "`head` must be one of 'cifar', 'imagenet'"),
            ({"head": "imagenet"}, "needs images of a fixed size"),
        ),
        **DEEP,
    ),
    "resnet20": Tiny(
        COLOURLESS | {"filters": 4, "blocks": 1},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "head", "stochastic_depth", "filter_wise", "drop_block"),
        wrong=(({"filters": 0}, "filters=0"), ({"blocks": 0}, "blocks=0")),
        **DEEP,
    ),
    "wide_resnet_28_10": Tiny(
        COLOURLESS | {"filters": 2, "width": 2, "blocks": 1},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "head", "stochastic_depth", "filter_wise", "drop_block"),
        wrong=(({"width": 0}, "width=0"), ({"blocks": 0}, "blocks=0")),
        **DEEP,
    ),
    "densenet_bc_100_12": Tiny(
        COLOURLESS | {"growth_rate": 2, "layers_per_block": 2},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "head", "filter_wise", "drop_block", "between_modules"),
        wrong=(({"growth_rate": 0}, "growth_rate=0"), ({"layers_per_block": 0}, "layers_per_block=0")),
        **DEEP,
    ),
    "convnext_tiny": Tiny(
        COLOURLESS | {"filters": 4, "blocks": (1, 2)},
        sizes=((9, 14), (1, 1)),
        plans=("none", "paper", "head", "stochastic_depth", "filter_wise", "drop_block"),
        dense_output=False,
        normalizations=("layer", None),
        wrong=(({"filters": 0}, "filters=0"), ({"blocks": ()}, "`blocks` must be a tuple")),
    ),
}
UNET_PLANS = (
    "none",
    "paper",
    "head",
    "between_modules",
    "unet_2015",
    "bayesian_segnet",
    "bayesian_segnet_decoder",
)
DENSE: Any = {"sizes": ((9, 14), (1, 1)), "dense_output": True, "normalizations": ("batch", None)}
WRONG_UNET = (
    ({"depth": 0}, "`depth` must be a positive int"),
    ({"filters": 2.5}, "`filters` must be a positive int"),
    ({"upsample": "nearest"}, "`upsample` must be one of 'transpose', 'resize'"),
)
TINY |= {
    "attention_unet": Tiny(COLOURLESS | {"depth": 2, "filters": 4}, plans=UNET_PLANS, wrong=WRONG_UNET, **DENSE),
    "res_unet": Tiny(
        COLOURLESS | {"depth": 2, "filters": 4},
        plans=("none", "paper", "head", "unet_2015", "bayesian_segnet", "stochastic_depth", "filter_wise"),
        wrong=WRONG_UNET,
        **DENSE,
    ),
    "unet_plus_plus": Tiny(
        COLOURLESS | {"depth": 2, "filters": 4},
        plans=("none", "paper", "head", "between_modules", "unet_2015", "bayesian_segnet_encoder"),
        wrong=WRONG_UNET,
        **DENSE,
    ),
    "segnet": Tiny(
        COLOURLESS | {"filters": 4, "convs": (2, 2)},
        plans=("none", "paper", *(plan for plan in models.list_plans() if plan.startswith("bayesian"))),
        wrong=(
            ({"filters": 0}, "filters=0"),
            ({"convs": ()}, "`convs` must be a tuple"),
            ({"convs": (0,)}, "convs=0"),
        ),
        **DENSE,
    ),
    "fc_densenet103": Tiny(
        COLOURLESS | {"filters": 4, "growth_rate": 3, "layers_per_block": (1, 2, 2)},
        plans=("none", "paper", "head", "between_modules", "bayesian_segnet", "filter_wise"),
        wrong=(
            ({"filters": 0}, "filters=0"),
            ({"growth_rate": 0}, "growth_rate=0"),
            ({"layers_per_block": (3,)}, "at least two ints"),
            ({"layers_per_block": (3, 0)}, "layers_per_block=0"),
        ),
        **DENSE,
    ),
}
# The same builder with other numbers: tests/models/test_published.py looks at those.
VARIANTS = {
    "resnet20": ["resnet32", "resnet44", "resnet56", "resnet110"],
    "vgg16": ["vgg11", "vgg13", "vgg19"],
    "wide_resnet_28_10": ["wide_resnet_16_8"],
    "fc_densenet103": ["fc_densenet56", "fc_densenet67"],
}
WRONG_IN_EVERY_BUILDER: tuple[tuple[dict[str, Any], str], ...] = (
    ({"num_classes": 0}, "`num_classes` must be a positive int"),
    ({"input_shape": (8, 8)}, "must be .height, width, channels.*8, 8"),
    ({"input_shape": (8, 8, None)}, "must be .height, width, channels"),
    ({"normalization": "instance"}, "Unknown normalization 'instance'"),
    ({"weight_decay": -1}, "weight_decay=-1"),
    ({"dropout": {"moduel*": 0.1}}, "Unknown site 'moduel.'"),
    ({"dropout": 1.0}, "rate=1.0"),
    ({"dropout": [0.1]}, r"dropout=\[0.1\]"),
)
# Found by what all builders share: options and plans by `build_model`, the layers of a plan by `Sites`.
WRONG_BEFORE_THE_BUILDER: tuple[tuple[dict[str, Any], str], ...] = (
    ({"activatoin": "relu"}, "Unknown option of .* 'activatoin'. Did you mean 'activation'"),
    ({"dropout": {"moduel*": models.ramp(0, 0.1)}}, "Unknown site 'moduel.'"),
    ({"dropout": {"*": {"name": "drop_connect_dense", "units": 3, "rate": 0.1}}}, "cannot be put at a site"),
    ({"dropout": {"*": "drop_connect_dense:.1"}}, "DropConnectDense replaces a layer of a model"),
    ({"dropout": {"*": 1.5}}, "rate=1.5"),
    ({"dropout": {"*": "dropuot:0.2"}}, "Did you mean 'dropout'"),
    ({"dropout": {"*": "spatial_dropout3d:0.2"}}, "Cannot put 'spatial_dropout3d:0.2' at site"),
    ({"dropout": "papre"}, "Unknown plan 'papre'. Did you mean 'paper'"),
)


def build(name: str, **options: Any) -> keras.Model:
    return models.build_model(name, **{**TINY[name].options, **options})
