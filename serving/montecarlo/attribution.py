"""Attribution: how much of the uncertainty comes from each site, by pick-freeze on the sampler's own masks."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dropzoo.layers.draws import Draw
from dropzoo.models.graph.unroll import Unrolled
from dropzoo.serving.calibration.sites import named_sites
from dropzoo.serving.calibration.temperature import is_coins
from dropzoo.serving.montecarlo.active import TRACING
from dropzoo.serving.montecarlo.calibrated import tempered
from dropzoo.serving.montecarlo.cut import costs_or_none, fill_shapes
from dropzoo.serving.montecarlo.inputs import keys_of
from dropzoo.serving.montecarlo.outputs import Output
from dropzoo.serving.montecarlo.reader import Reader
from dropzoo.serving.montecarlo.samples import SampleGraph
from dropzoo.serving.montecarlo.trunk import Trunk

_VALUES = 1 << 23  # at most this many numbers in the samples of a batch
_LEAST = 1e-12

#: Function from inputs, the number of the site whose masks are swapped, and two seeds, to samples
#: `(samples, batch, ..., classes)`. With -1 it swaps no site, and with -2 all sites.
Swapped = Callable[[Any, int, int, int], np.ndarray]


@dataclass(frozen=True)
class Attribution:
    """How much of the uncertainty comes from each site. Printing it gives a table.

    The variance is that of the probabilities (or values) over the samples, summed over classes and pixels. The
    mutual information is its second-order approximation, `sum_k var(p_k) / (2 mean(p_k))`.

    Attributes:
        sites: The names of the active sites, in the order of the model.
        first: Float array `(sites,)`, the share of the variance that comes from a site by itself.
        total: Float array `(sites,)`, the share of the variance that disappears without a site, including its
            interactions.
        information_first: Float array `(sites,)`, like `first` for the mutual information; NaN for regression.
        information_total: Float array `(sites,)`, like `total` for the mutual information; NaN for regression.
        per_image: Float array `(sites, images)`, the `total` of each image.
        cost: Float array `(sites,)`, the cost of all samples if only this site drops. The unit is one pass through
            the whole model, measured in multiplications.
    """

    sites: tuple[str, ...]
    first: np.ndarray
    total: np.ndarray
    information_first: np.ndarray
    information_total: np.ndarray
    per_image: np.ndarray
    cost: np.ndarray

    def __str__(self) -> str:
        width = max(map(len, (*self.sites, "site")))
        lines = [f"{'site':{width}}  first  total  information  cost in passes"]
        for i, site in enumerate(self.sites):
            lines.append(
                f"{site:{width}}  {self.first[i]:5.3f}  {self.total[i]:5.3f}  {self.information_total[i]:11.3f}  "
                f"{self.cost[i]:14.2f}"
            )
        return "\n".join(lines)


def shares(
    swapped: Swapped, batches: Iterator[Any], sites: int, seeds: tuple[int, int], kind: str
) -> list[np.ndarray]:
    """Returns the shares of the variance and of the mutual information that come from each site.

    Let A and B be two independent draws of all masks, and A_s be A with the masks of site s from B. For samples y,
    `avg (y(B) - mean) (y(A_s) - y(A))` is the variance that comes from s by itself, and
    `avg (y(A) - y(A_s))**2 / 2` is the variance that disappears if s does not drop. This takes `sites + 2` times
    the samples.

    Args:
        swapped: The sampler.
        batches: Inputs of batches of images.
        sites: Int, the number of sites.
        seeds: The seeds of A and B.
        kind: The output kind.

    Returns:
        `first`, `total`, `information_first`, `information_total`, all `(sites,)`, and the total of each image,
        `(sites, images)`.

    Reference:
        Saltelli et al., "Variance based sensitivity analysis of model output", 2010; Jansen, 1999, for the total.
    """
    sums = np.zeros((2, 2, sites))  # plain and weighted, first and total
    variances = np.zeros(2)
    per_image = []
    for inputs in batches:
        a, b = (swapped(inputs, which, *seeds).astype(np.float64) for which in (-1, -2))
        mean = 0.5 * (a.mean(0) + b.mean(0))
        weights = (np.ones_like(mean), _weights(mean, kind))
        spread = 0.5 * (a.var(0) + b.var(0))
        variances += [float((w * spread).sum()) for w in weights]
        each = _by_image(spread)
        rows = []
        for site in range(sites):
            change = swapped(inputs, site, *seeds) - a
            first, total = ((b - mean) * change).mean(0), 0.5 * (change**2).mean(0)
            for i, w in enumerate(weights):
                sums[i, :, site] += [(w * first).sum(), (w * total).sum()]
            rows.append(_by_image(total) / np.maximum(each, _LEAST))
        per_image.append(np.stack(rows))
    plain, information = sums / np.maximum(variances, _LEAST)[:, None, None]
    if kind == "regression":
        information = np.full_like(information, np.nan)
    return [*plain, *information, np.concatenate(per_image, 1)]


def _weights(mean: np.ndarray, kind: str) -> np.ndarray:
    """Half the curvature of the entropy at the mean, which turns a variance into a mutual information."""
    p = np.clip(mean, 1e-6, 1 - 1e-6)
    return 0.5 / (p * (1 - p)) if is_coins(kind, mean.shape[-1]) else 0.5 / p


def _by_image(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1).sum(1)


def attribution_of(drawn: SampleGraph, seed: int, flat: list[tf.Tensor]) -> Attribution:
    """Returns the attribution of a sampler; see `MonteCarlo.attribute`.

    Args:
        drawn: The samples, of one output and a fixed number.
        seed: Int in [0, 2**32), the seed of the sampler.
        flat: The inputs, in the model's order.
    """
    reader, stage, count = drawn.reader, drawn.stage, drawn.wanted.count
    streams = {each.stream: i for i, each in enumerate(stage.active)}
    output = reader.outputs[0]

    def sample(flat: list[tf.Tensor], swap: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(flat[0])[0]
        rows = tf.zeros([batch], tf.uint32) if drawn.wanted.sampling == "fixed" else keys_of(flat, False)
        states = stage.states.read()
        frontier = stage.trunk.run_trunk(flat)

        def one(t: tf.Tensor) -> tf.Tensor:
            def source(stream: str) -> Draw:
                swaps = (swap == -2) | (swap == streams[stream])
                return drawn.draw(stream, tf.where(swaps, second, first), rows, t, plain=False)

            stage.states.write(states)
            (p,) = tempered(reader.read(stage.run_head(frontier, source, first, 0, t)), drawn.calibration)
            return p

        signature = tf.TensorSpec([None, *output.shape[1:]], tf.float32)
        values = tf.map_fn(one, tf.range(count), fn_output_signature=signature, parallel_iterations=1)
        stage.states.write(states)
        return values

    specs = [tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int64)]
    run = reader.traced(sample, *specs)
    at_once = max(1, min(64, _VALUES // (_numbers(flat, output) * count)))
    batches = ([x[i : i + at_once] for x in flat] for i in range(0, int(flat[0].shape[0]), at_once))

    def swapped(inputs: list[tf.Tensor], which: int, first: int, second: int) -> np.ndarray:
        with TRACING:
            seeds = [tf.constant(each, tf.int64) for each in (first, second)]
            return run(inputs, tf.constant(which), *seeds).numpy()

    seeds = (seed, (seed + 0x9E3779B9) % 2**32)
    first, total, own, all_of_it, per_image = shares(swapped, batches, len(streams), seeds, output.kind)
    named = {id(layer): name for name, layer in named_sites(reader.model).items()}
    sites = tuple(named.get(id(each.layer), each.stream) for each in stage.active)
    cost = np.array([_cost(reader, [each.layer], count) for each in stage.active])
    return Attribution(sites, first, total, own, all_of_it, per_image, cost)


def _numbers(flat: list[tf.Tensor], output: Output) -> int:
    """How many numbers the inputs or the output of one image have, whichever is larger.

    An output of any size has as many positions as the largest input.
    """
    rows = [tuple(x.shape[1:]) for x in flat]
    known = [n for n in output.shape[1:-1] if n is not None]
    is_open = len(known) < len(output.shape) - 2
    positions = max(math.prod(row[:-1]) for row in rows) if is_open else math.prod(known)
    return max(sum(map(math.prod, rows)), positions * (output.classes or 1))


def _cost(reader: Reader, active: list[keras.Layer], count: int) -> float:
    """The multiplications of all samples, as a number of passes, if only these layers drop."""
    trunk = Trunk(Unrolled(reader.model, reader.inputs.structure, reader.symbols), active, [], True)
    costs = costs_or_none(trunk, fill_shapes(reader.inputs))
    if costs is None or not costs.trunk_macs + costs.head_macs:
        return float("nan")
    return (costs.trunk_macs + count * costs.head_macs) / (costs.trunk_macs + costs.head_macs)
