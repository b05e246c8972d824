"""Rates that rise with depth: a value for a plan."""

import fnmatch
from dataclasses import dataclass
from typing import Any

from dropzoo import layers
from dropzoo.common.checks import check_rate, unknown
from dropzoo.models.sites import Site, check_pattern


@dataclass(frozen=True)
class Ramp:
    """Rates that rise in a straight line over the sites that a pattern matches, in order of depth; see `ramp`."""

    start: float
    end: float
    layer: str
    options: dict[str, Any]

    def expand(self, names: list[str]) -> dict[str, Any]:
        """A spec for each site, given those that the pattern matches in the order of the forward pass."""
        last = max(len(names) - 1, 1)
        places = [i / last for i in range(len(names))] if len(names) > 1 else [1.0]
        return {
            name: {
                "name": self.layer,
                "rate": round(self.start + (self.end - self.start) * place, 6),
                **self.options,
            }
            for name, place in zip(names, places, strict=True)
        }


def ramp(start: float, end: float, layer: str = "drop_path", **options: Any) -> Ramp:
    """A value for a plan: the rate rises over the matched sites from `start` at the first to `end` at the last.

    Args:
        start: Float in [0, 1), the rate at the shallowest site.
        end: Float in [0, 1), the rate at the deepest, or at the only one.
        layer: Name of a site layer, of `layers.list_layers(sites_only=True)`.
        options: Of that layer, except `rate` and `name`.

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
                "The options of a ramp are those of its layer except `rate`, which is what rises, and `name`. "
                f"Received: {taken}={options[taken]!r}; which layer says `layer`, how much `start` and `end`"
            )
    layers.get({"name": layer, "rate": check_rate(start, "start"), **options})  # its errors now and not later
    return Ramp(start, check_rate(end, "end"), layer, options)


def expand_ramps(plan: dict[str, Any], sites: list[Site]) -> dict[str, Any]:
    """The plan with the sites that a ramp's pattern matches in the place of the pattern."""
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
