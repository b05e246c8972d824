"""Seeds in recomputed activations: where a forward pass is computed again for its gradient, it draws as it did.

Under `tf.recompute_grad`, which `keras.remat` and `keras.RematScope` use, TensorFlow keeps no activation and runs
the layers again in the backward pass. The seed generators have moved on by then, so the seeds of each such call
are kept with the call.
"""

from collections import OrderedDict, defaultdict
from typing import Any

import keras

from dropzoo.common.tensorflow_internals import recomputed_calls
from dropzoo.layers.draws.hash import Tensor

_KEPT = 4096  # calls; a call whose gradient is never asked for would be kept for ever


class _Seeds:
    """The seeds of one call: for each generator those that it gave, in order."""

    def __init__(self, call: object) -> None:
        self._call = call  # so that the id of the call is not given to another object
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
        RuntimeError: If the forward pass of a recomputation is too long ago.
    """
    inner = []  # the forward passes inside the innermost recomputation: they will be computed again themselves
    seed = None
    for call, again in recomputed_calls():
        if again:
            if id(call) not in _seeds_of:
                raise RuntimeError(
                    f"The seeds of only {_KEPT} calls under tf.recompute_grad are kept: take the gradient "
                    "earlier, or let fewer and larger blocks be recomputed."
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
