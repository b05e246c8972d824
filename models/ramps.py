"""Rates that change with depth, as a value in a plan."""

import fnmatch
from dataclasses import dataclass
from typing import Any

from dropzoo import layers
from dropzoo.common.checks import check_rate, unknown
from dropzoo.common.seeds import random_untouched
from dropzoo.models.sites import Site, check_pattern


@dataclass(frozen=True)
class Ramp:
    """Rates that change linearly with depth, over the sites that a key of a plan matches; see `models.ramp`.

    Attributes:
        start: Float in [0, 1), the rate at the shallowest site.
        end: Float in [0, 1), the rate at the deepest site, or at the only one.
        layer: The name of the layer.
        options: Dict of the other options of the layer.
    """

    start: float
    end: float
    layer: str
    options: dict[str, Any]

    def expand(self, names: list[str]) -> dict[str, Any]:
        """Returns a spec for each site; `names` are the sites that match, in the order of the forward pass."""
        last = max(len(names) - 1, 1)
        depths = [i / last for i in range(len(names))] if len(names) > 1 else [1.0]
        return {
            name: {
                "name": self.layer,
                "rate": round(self.start + (self.end - self.start) * depth, 6),
                **self.options,
            }
            for name, depth in zip(names, depths, strict=True)
        }


def ramp(start: float, end: float, layer: str = "drop_path", **options: Any) -> Ramp:
    """Returns rates that change linearly with depth, over the sites that a key of a plan matches.

    Let n be the number of sites, and number them from 0 in the order of the forward pass. Site i gets the rate
    `start + (end - start) * i / (n - 1)`. A single site gets `end`.

    Args:
        start: Float in [0, 1), the rate at the shallowest site.
        end: Float in [0, 1), the rate at the deepest site, or at the only one.
        layer: Name of a site layer, one of `layers.list_layers(sites_only=True)`.
        options: The options of that layer, except `rate` and `name`.

    Returns:
        A `Ramp`, for `build_model(..., dropout={"*_branch": ramp})` and `retrofit`.

    Raises:
        ValueError: For a rate outside [0, 1), an unknown layer, and an option that the layer does not have.

    Example:
    >>> from dropzoo import models
    >>> plan = {"*_branch": models.ramp(0.0, 0.2)}
    >>> model = models.build_model("resnet20", blocks=1, filters=4, dropout=plan)
    >>> [site.spec for site in models.list_sites(model) if site.spec]
    ['drop_path:0.0', 'drop_path:0.1', 'drop_path:0.2']
    """
    for taken in ("rate", "name"):
        if taken in options:
            raise ValueError(
                "A ramp takes the options of its layer, but not `rate` (pass `start` and `end`) and not `name` "
                f"(pass `layer`). Received: {taken}={options[taken]!r}"
            )
    with random_untouched():
        layers.get({"name": layer, "rate": check_rate(start, "start"), **options})  # raises for a wrong option
    return Ramp(start, check_rate(end, "end"), layer, options)


def expand_ramps(plan: dict[str, Any], sites: list[Site]) -> dict[str, Any]:
    """Returns a plan in which each ramp's pattern is replaced by the sites that it matches.

    Args:
        plan: Dict from patterns to specs and ramps.
        sites: The sites of the model.

    Raises:
        ValueError: If a ramp's pattern matches no site.
    """
    expanded: dict[str, Any] = {}
    for pattern, value in plan.items():
        if isinstance(value, Ramp):
            names = [s.name for s in sites if fnmatch.fnmatchcase(s.name, check_pattern(pattern))]
            if not names:
                raise unknown("site", pattern, [site.name for site in sites])
            for name, spec in value.expand(names).items():
                expanded.pop(name, None)  # a later entry wins, and a dict keeps a key's first place
                expanded[name] = spec
        else:
            expanded.pop(pattern, None)
            expanded[pattern] = value
    return expanded
