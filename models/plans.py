"""Plans from the literature: which dropout layers, at which sites, and at which rates."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dropzoo.common.checks import unknown
from dropzoo.models.sites import Site


@dataclass(frozen=True)
class Plan:
    """A published choice of sites, dropout layers and rates.

    Attributes:
        name: The plan's name, for `build_model(..., dropout=name)`.
        description: Which dropout the plan puts where.
        reference: The paper that the plan comes from.
        choose: Function that takes the sites of a model and returns a dict that maps names of sites to specs.
        effect: The effect that the authors report; empty if they report none.

    Example:
    >>> from dropzoo import models
    >>> models.get_plan("head").patterns(models.list_sites("lenet5"))
    {'head': 0.5}
    """

    name: str
    description: str
    reference: str
    choose: Callable[[list[Site]], dict[str, Any]]
    effect: str = ""

    def patterns(self, sites: list[Site]) -> dict[str, Any]:
        """Returns the plan for a model, as a dict from names of sites to specs.

        Args:
            sites: The sites of the model, as `list_sites` returns them.

        Raises:
            ValueError: If the model has none of the plan's sites, or if the plan is `"paper"`, which is different
                for each model.
        """
        if self.name == "paper":
            raise ValueError(
                "The plan 'paper' is different for each model, so it is only for models that are built by name. "
                "For other models, choose another plan, or pass the sites and what to put there"
            )
        chosen = self.choose(sites)
        if not chosen and self.name != "none":
            raise ValueError(
                f"This model has none of the sites of the plan {self.name!r} ({self.description}). The "
                f"sites of the model: {', '.join(site.name for site in sites)}"
            )
        return chosen


def list_plans() -> list[str]:
    """Returns the names of the plans, sorted; `"paper"` is different for each model, see `build_model`.

    Example:
    >>> from dropzoo import models
    >>> models.list_plans()
    ['bayesian_segnet', 'bayesian_segnet_center', 'bayesian_segnet_classifier', 'bayesian_segnet_decoder',
     'bayesian_segnet_encoder', 'bayesian_segnet_encoder_decoder', 'between_modules', 'drop_block', 'filter_wise',
     'head', 'none', 'paper', 'stochastic_depth', 'unet_2015']
    """
    return sorted(_PLANS)


def get_plan(name: str) -> Plan:
    """Returns a plan by name, with its description and reference.

    Args:
        name: One of `list_plans()`.

    Raises:
        ValueError: For an unknown name; the error suggests the closest.

    Example:
    >>> from dropzoo import models
    >>> models.get_plan("head").description
    '0.5 before the classifier'
    """
    if name not in _PLANS:
        raise unknown("plan", name, _PLANS)
    return _PLANS[name]


def _head(sites: list[Site]) -> dict[str, Any]:
    return {site.name: 0.5 for site in sites if site.kind == "head"}


def _between_modules(sites: list[Site]) -> dict[str, Any]:
    return {site.name: 0.25 for site in sites if site.kind in ("module", "pool")}


def _unet_2015(sites: list[Site]) -> dict[str, Any]:
    encoder, bottleneck = _stages(sites, "encoder"), _stages(sites, "bottleneck")
    return {convs[-1]: 0.5 for stages in (encoder, bottleneck) for convs in [_convs(stages[-1:])] if convs}


def _bayesian_segnet(sites: list[Site]) -> dict[str, Any]:
    encoder, decoder = _stages(sites, "encoder"), _stages(sites, "decoder")
    deeper_encoder, deeper_decoder = encoder[len(encoder) // 2 :], decoder[: (len(decoder) + 1) // 2]
    chosen = [site.name for stage in deeper_encoder for site in stage if site.kind == "pool"]
    chosen += _convs(_stages(sites, "bottleneck"))[-1:]
    chosen += [name for stage in deeper_decoder for name in _convs([stage])[-1:]]
    return dict.fromkeys(chosen, 0.5)


def _segnet_encoder(sites: list[Site]) -> dict[str, Any]:
    return {s.name: 0.5 for stage in _stages(sites, "encoder") for s in stage if s.kind == "pool"}


def _segnet_decoder(sites: list[Site]) -> dict[str, Any]:
    ends = [_convs([stage])[-1:] for stage in _stages(sites, "decoder")]
    return {name: 0.5 for end in ends for name in end}


def _segnet_both(sites: list[Site]) -> dict[str, Any]:
    return _segnet_encoder(sites) | _segnet_decoder(sites)


def _segnet_center(sites: list[Site]) -> dict[str, Any]:
    pools = list(_segnet_encoder(sites))[-1:]
    return dict.fromkeys([*pools, *_convs(_stages(sites, "bottleneck"))[-1:]], 0.5)


def _stochastic_depth(sites: list[Site]) -> dict[str, Any]:
    branches = [site.name for site in sites if site.kind == "branch"]
    return {name: f"drop_path:{0.5 * i / len(branches):.4g}" for i, name in enumerate(branches, start=1)}


def _drop_block(sites: list[Site]) -> dict[str, Any]:
    inside = [site for site in sites if site.kind in ("conv", "branch", "block")]
    stages = list(dict.fromkeys(site.name.partition("_")[0] for site in inside if "_" in site.name))
    return {s.name: "drop_block2d:0.1" for s in inside if s.name.partition("_")[0] in stages[-2:]}


def _filter_wise(sites: list[Site]) -> dict[str, Any]:
    convs = [site for site in sites if site.kind in ("conv", "branch") and len(site.shape) == 4]
    return {site.name: "spatial_dropout2d:0.1" for site in convs}


def _stages(sites: list[Site], prefix: str) -> list[list[Site]]:
    """Returns the sites of encoder1, encoder2, ... or decoder1, ..., one list for each stage."""
    stages: dict[str, list[Site]] = {}
    for site in sites:
        stage = site.name.partition("_")[0]
        if re.fullmatch(rf"{prefix}\d*", stage):
            stages.setdefault(stage, []).append(site)
    return list(stages.values())


def _convs(stages: list[list[Site]]) -> list[str]:
    return [site.name for stage in stages for site in stage if site.kind == "conv"]


_PLANS = {
    plan.name: plan
    for plan in [
        Plan("none", "no dropout, the same as dropout=None", "", lambda sites: {}),
        Plan(
            "paper",
            "the dropout of the model's own paper, or of a related paper, if the model's own has none "
            "(dropout=0.3 keeps its layers and sites, and sets all their rates to 0.3)",
            "the reference in the model's docstring",
            lambda sites: {},
        ),
        Plan(
            "head",
            "0.5 before the classifier",
            "Hinton et al. 2012, arXiv:1207.0580; usual in classifiers since Krizhevsky et al. 2012",
            _head,
        ),
        Plan(
            "between_modules",
            "0.25 after the pooling of each module or stage",
            "Srivastava et al. 2014, JMLR 15 (dropout in all layers of convolutional networks)",
            _between_modules,
        ),
        Plan(
            "unet_2015",
            "0.5 at the end of the contracting path: the deepest encoder stage and the bottleneck",
            "Ronneberger et al. 2015, arXiv:1505.04597",
            _unet_2015,
        ),
        Plan(
            "bayesian_segnet",
            "0.5 after each pooling in the deeper half of the encoder, after the bottleneck, and after the last "
            "convolution of each stage in the deeper half of the decoder",
            "Kendall et al. 2015, arXiv:1511.02680",
            _bayesian_segnet,
        ),
        *(
            Plan(
                f"bayesian_segnet_{part}",
                f"0.5 {where}",
                "Kendall et al. 2015, arXiv:1511.02680 (one of the variants compared there)",
                choose,
            )
            for part, where, choose in [
                ("encoder", "after each pooling of the encoder", _segnet_encoder),
                ("decoder", "at the end of each stage of the decoder", _segnet_decoder),
                (
                    "encoder_decoder",
                    "after each pooling of the encoder and at the end of each stage of the decoder",
                    _segnet_both,
                ),
                (
                    "center",
                    "after the deepest pooling, and after the bottleneck if the model has one",
                    _segnet_center,
                ),
                ("classifier", "before the classifier", _head),
            ]
        ),
        Plan(
            "stochastic_depth",
            "`drop_path` at the end of each residual branch; the rate at branch l of L is 0.5 l / L",
            "Huang et al. 2016, arXiv:1603.09382",
            _stochastic_depth,
            "the authors' 110-layer network on CIFAR-10: test error 6.41 % at constant depth, 5.23 % with "
            "stochastic depth",
        ),
        Plan(
            "drop_block",
            "DropBlock with 7x7 blocks at 0.1 after convolutions, branches and residual blocks of the last two "
            "stages",
            "Ghiasi et al. 2018, arXiv:1810.12890 (groups 3 and 4 of a ResNet-50)",
            _drop_block,
            "the authors' ResNet-50 on ImageNet: accuracy 76.51 % without DropBlock, 78.13 % with it",
        ),
        Plan(
            "filter_wise",
            "whole feature maps at 0.1 after every convolution, including those at the ends of branches",
            "google/uncertainty-baselines, Wide ResNet with filter-wise Monte-Carlo dropout in every layer",
            _filter_wise,
            "the authors' Wide ResNet 28-10 on CIFAR-10: without dropout, accuracy 96.0 %, accuracy on corrupted "
            "images 76.1 %, ECE 0.023; with this plan (30 samples, and each training image several times in a "
            "batch), 96.2 %, 79.6 % and 0.005. With element-wise dropout in the residual blocks only, the "
            "accuracy on corrupted images is 70.0 %",
        ),
    ]
}
