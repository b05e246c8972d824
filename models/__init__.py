"""Models whose dropout sites have names, in plain Keras 3."""

from dropzoo.models import (  # noqa: F401  (a family registers its models when imported)
    all_convolutional,
    attention_unet,
    convnext,
    densenet,
    fc_densenet,
    lenet,
    res_unet,
    resnet,
    segnet,
    simple_cnn,
    unet,
    unet_plus_plus,
    vgg,
    wide_resnet,
)
from dropzoo.models.build import build_model, list_sites
from dropzoo.models.names import match_sites
from dropzoo.models.plans import Plan, get_plan, list_plans
from dropzoo.models.ramps import ramp
from dropzoo.models.reference import list_weights
from dropzoo.models.registry import get_builder, list_models, register_model
from dropzoo.models.sites import Site, Sites
from dropzoo.models.surgery.report import dropout_report
from dropzoo.models.surgery.retrofit import retrofit, strip_dropout

__all__ = [
    "Plan",
    "Site",
    "Sites",
    "build_model",
    "dropout_report",
    "get_builder",
    "get_plan",
    "list_models",
    "list_plans",
    "list_sites",
    "list_weights",
    "match_sites",
    "ramp",
    "register_model",
    "retrofit",
    "strip_dropout",
]
