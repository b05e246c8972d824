"""Plans of the literature: which sites, which layer, at which rate."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dropzoo.layers._checks import unknown
from dropzoo.models.sites import Site


@dataclass(frozen=True)
class Plan:
    """A published answer to "where, what and how much".

    Attributes:
        name: For `build_model(..., dropout=name)`.
        description: What it puts where.
        reference: Where it comes from.
        choose: From the sites of a model to a dict of site names and specs.
    """

    name: str
    description: str
    reference: str
    choose: Callable[[list[Site]], dict[str, Any]]

    def patterns(self, sites: list[Site]) -> dict[str, Any]:
        """The plan for a model with these sites; a ValueError if the model has none of those it speaks of."""
        if self.name == "paper":
            raise ValueError("Plan 'paper' is each model's own: pass dropout='paper' to build_model")
        chosen = self.choose(sites)
        if not chosen and self.name != "none":
            raise ValueError(
                f"Plan {self.name!r} ({self.description}) finds none of its sites in this model, which has: "
                f"{', '.join(site.name for site in sites)}"
            )
        return chosen


def list_plans() -> list[str]:
    """The names of the plans, sorted; `"paper"` stands for what a model's own paper did.

    Example:
    >>> from dropzoo import models
    >>> models.list_plans()
    ['bayesian_segnet', 'between_modules', 'head', 'none', 'paper', 'unet_2015']
    """
    return sorted(_PLANS)


def get_plan(name: str) -> Plan:
    """A plan by name, with its description and reference."""
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
    chosen += [_convs([stage])[-1] for stage in deeper_decoder]
    return dict.fromkeys(chosen, 0.5)


def _stages(sites: list[Site], prefix: str) -> list[list[Site]]:
    """The sites of encoder1, encoder2, ... or decoder1, ..., one list a stage."""
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
        Plan("none", "no dropout, like dropout=None", "", lambda sites: {}),
        Plan(
            "paper",
            "what the model's own paper did; a float instead of a plan is the paper's sites at that rate",
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
            "0.25 after each module's or stage's pooling",
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
            "0.5 in the central encoder and decoder: after the poolings of the deeper half of the encoder, the "
            "bottleneck, and the last convolution of each stage of the deeper half of the decoder",
            "Kendall et al. 2015, arXiv:1511.02680",
            _bayesian_segnet,
        ),
    ]
}
