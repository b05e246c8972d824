"""`build_model` builds a model by its name; `list_sites` lists the sites of a model, built or named."""

import inspect
import os
from typing import Any

import keras

from dropzoo.common.checks import unknown
from dropzoo.common.seeds import random_untouched
from dropzoo.models import reference
from dropzoo.models.plans import get_plan
from dropzoo.models.ramps import Ramp, expand_ramps
from dropzoo.models.registry import get_builder
from dropzoo.models.sites import DropoutPlan, Site, sites_of


def build_model(
    name: str, *, dropout: DropoutPlan = None, weights: str | os.PathLike | None = None, **options: Any
) -> keras.Model:
    """Builds a model with dropout at named sites.

    Args:
        name: One of `list_models()`.
        dropout: The plan, which says what to drop where:

            - None: drop nothing; the graph has no dropout layer at all.
            - A dict from fnmatch patterns of site names to specs for `layers.get`, such as
              `{"decoder*": "spatial_dropout2d:0.2", "bottleneck*": 0.5}`. If several patterns match a site, the
              last one wins; the spec None means no dropout. For rates that rise with depth, the value can be a
              ramp: `{"*_branch": models.ramp(0.0, 0.2)}`.
            - `"paper"`: the dropout of the model's own paper, or of a related paper, if the model's own has none.
            - A float in [0, 1): the layers and sites of `"paper"`, all at this rate.
            - Another string: a plan of `list_plans()`.
        weights: None for random weights; a weights file (`.weights.h5`, `.keras`); or the name of the data that
            reference weights were trained on, see `list_weights()`. With reference weights, the options are
            those of the reference model; other values raise an error.
        options: The model's own options, including `input_shape` and `num_classes`; see
            `help(models.get_builder(name))`.

    Returns:
        A Functional `keras.Model` that takes float images in [0, 1], `(batch, height, width, channels)`, and
        returns float32 logits. For a given random seed its initial weights do not depend on the plan.

    Raises:
        ValueError: For an unknown model, option, plan, layer or name of weights, for a layer that cannot be put at
            a site, and for a pattern that matches no site.

    Example:
    >>> from dropzoo import models
    >>> model = models.build_model("unet", depth=2, filters=8, dropout={"skip*": 0.1})
    >>> [site.name for site in models.list_sites(model) if site.spec]
    ['skip1', 'skip2']
    """
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "The models need the image data format 'channels_last'. Received: "
            f"{keras.config.image_data_format()!r}, Keras' global setting. Call "
            "keras.config.set_image_data_format('channels_last') first"
        )
    if weights is not None:
        if reference.is_name(weights):
            options = reference.options_of(name, str(weights), options)
        model = build_model(name, dropout=dropout, **options)
        reference.load(model, name, weights)
        return model
    builder = get_builder(name)
    known = [p for p in inspect.signature(builder).parameters if p not in ("dropout", "name")]
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    # A named plan and a ramp depend on all sites, which are read off a model without dropout first.
    if isinstance(dropout, str) and dropout != "paper":
        dropout = get_plan(dropout).patterns(list_sites(name, **options))
    if isinstance(dropout, dict) and any(isinstance(value, Ramp) for value in dropout.values()):
        dropout = expand_ramps(dropout, list_sites(name, **options))
    return builder(dropout=dropout, **options)


def list_sites(model: str | keras.Model, *, edges: bool = False, **options: Any) -> list[Site]:
    """Returns the dropout sites of a model, in the order of its forward pass.

    Args:
        model: A Functional or Sequential model, or the name of a model, which is then built with `options`. A site
            in a nested model is called `<nested model>/<site>`. A layer that is called several times has the sites
            `<layer>_call1`, `<layer>_call2`, ...
        edges: Bool. If True, the result also has edges: a tensor that several layers read has one edge for each of
            them, such as `"enc->join"`. Dropout on the edge `"enc->join"` affects only `join`. A dropout layer
            that stands on one edge is listed as this edge.
        options: If `model` is a name, the options of `build_model`; all have defaults.

    Raises:
        ValueError: For an unknown name or option, for options together with a model, and for a model without a
            graph: a subclassed model, or a Sequential model that is not built.

    Example:
    >>> from dropzoo import models
    >>> [site.name for site in models.list_sites("unet", depth=1)]  # doctest: +NORMALIZE_WHITESPACE
    ['encoder1_conv1', 'encoder1_conv2', 'encoder1_pool', 'skip1', 'bottleneck_conv1', 'bottleneck_conv2',
     'decoder1_up', 'decoder1_conv1', 'decoder1_conv2', 'head']
    """
    if isinstance(model, str):
        with random_untouched():
            return sites_of(build_model(model, **options), edges)
    if options:
        raise ValueError(
            f"Options can only be passed with the name of a model. Received: a model and {sorted(options)}"
        )
    return sites_of(model, edges)
