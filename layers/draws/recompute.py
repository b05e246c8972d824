"""Seeds for recomputed activations: a forward pass that runs again for its gradient draws the same masks.

Under `tf.recompute_grad`, which `keras.remat` and `keras.RematScope` use, TensorFlow keeps no activation and runs
the layers again in the backward pass. The seed generators have advanced by then, so the seeds of each call are
kept with the call.
"""

from collections import OrderedDict, defaultdict
from typing import Any

import keras

from dropzoo.common.tensorflow_internals import recomputed_calls
from dropzoo.layers.draws.hash import Tensor

_KEPT = 4096  # calls; without a limit, calls without a gradient would stay forever


class _Seeds:
    """The seeds of one call, in order, by the generator that drew them."""

    def __init__(self, call: object) -> None:
        self._call = call  # as long as it exists, no other object has its id
        self._given: dict[int, list[Tensor]] = defaultdict(list)
        self._again: dict[int, int] = defaultdict(int)

    def keep(self, generator: keras.random.SeedGenerator, seed: Tensor) -> None:
        self._given[id(generator)].append(seed)

    def draw_again(self, generator: keras.random.SeedGenerator) -> Tensor:
        given, place = self._given[id(generator)], self._again[id(generator)]
        self._again[id(generator)] = (place + 1) % len(given)  # a gradient may be computed twice
        return given[place]


_seeds_of: OrderedDict[int, _Seeds] = OrderedDict()  # by the id of the call, oldest first


def next_seed(generator: keras.random.SeedGenerator) -> Any:
    """Returns the next seed of a generator; in a recomputation, the one that the forward pass drew there.

    Args:
        generator: The layer's seed generator.

    Raises:
        RuntimeError: If the seeds of the forward pass are no longer kept.
    """
    inner = []  # forward passes inside the innermost recomputation, which will run again themselves
    seed = None
    for call, again in recomputed_calls():
        if again:
            if id(call) not in _seeds_of:
                raise RuntimeError(
                    f"The dropout masks of this call cannot be recomputed, because only the seeds of the last "
                    f"{_KEPT} calls under tf.recompute_grad are kept. Compute the gradient earlier, or use fewer "
                    f"and larger blocks."
                )
            seed = _seeds_of[id(call)].draw_again(generator)
            break
        inner.append(call)
    if seed is None:
        seed = generator.next()
    for call in inner:
        if id(call) not in _seeds_of:
            _seeds_of[id(call)] = _Seeds(call)
            while len(_seeds_of) > _KEPT:
                _seeds_of.popitem(last=False)
        _seeds_of[id(call)].keep(generator, seed)
    return seed
