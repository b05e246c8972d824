"""A layer's own draws on PyTorch, where Keras' uint32 is an int64: the hash runs in int32, which wraps around."""

import math
from typing import Any

import torch

from dropzoo.layers.draws.hash import STEPS, Shape, derive_key
from dropzoo.layers.draws.plain import PlainDraw

_CHUNK = 1 << 15  # so many int32 stay in the cache of a core while all steps of the hash run on them
_SIGN = -(1 << 31)


class TorchDraw(PlainDraw):
    """The draws of a layer in training, from its seed generator; the same as on every other backend."""

    def bits(self, shape: Shape) -> Any:
        signed = _hashed(math.prod(shape), derive_key(self._generator.next()))
        return (signed.to(torch.int64) & 0xFFFFFFFF).reshape(tuple(shape))

    def keep(self, shape: Shape, rate: Any) -> Any:
        # Signed numbers are compared, so both sides are moved by half of the range.
        limit = (torch.as_tensor(rate, dtype=torch.float32) * 4294967296.0).to(torch.int64) + _SIGN
        kept = _hashed(math.prod(shape), derive_key(self._generator.next()), limit.to(torch.int32))
        return kept.reshape(tuple(shape))


@torch.no_grad()
def _hashed(size: int, key: Any, limit: Any = None) -> Any:
    """Returns `hash_bits` as int32, or where these bits, as unsigned numbers, are at least `limit`."""
    factor, start = (part.to(torch.int32) for part in (key[1] | 1, key[0]))
    if key.device.type != "cpu":
        return _chunk(0, size, factor, start, limit)
    found = torch.empty(size, dtype=torch.int32 if limit is None else torch.bool)
    for first in range(0, size, _CHUNK):
        last = min(first + _CHUNK, size)
        found[first:last] = _chunk(first, last, factor, start, limit)
    return found


def _chunk(first: int, last: int, factor: Any, start: Any, limit: Any) -> Any:
    """Returns `_hashed` for the positions from `first` to `last`."""
    h = torch.arange(first, last, dtype=torch.int32, device=factor.device).mul_(factor).add_(start)
    for shift, multiplier in STEPS:
        h ^= _shifted(h, shift)
        if multiplier is not None:
            h *= multiplier - ((multiplier >> 31) << 32)  # the int32 with the same bits
    return h if limit is None else (h ^ _SIGN) >= limit


def _shifted(h: Any, shift: int) -> Any:
    """Returns the numbers shifted to the right, with zeros from the left."""
    return (h >> shift).bitwise_and_((1 << (32 - shift)) - 1)
