"""Rivals to measure our layers and our trainer against, where Keras has none."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np


class PlainDropBlock2D(keras.layers.Layer):
    """DropBlock as it is usually written: uniform draws, padding, one square max-pooling and renormalisation."""

    def __init__(self, rate: float, block_size: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.block_size = rate, block_size
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        batch, height, width, channels = keras.ops.shape(inputs)
        size = self.block_size
        valid = (batch, height - size + 1, width - size + 1, channels)
        gamma = self.rate * height * width / size**2 / (valid[1] * valid[2])
        starts = keras.ops.cast(keras.random.uniform(valid, seed=self.seed_generator) < gamma, inputs.dtype)
        before, after = (size - 1) // 2, size // 2
        starts = keras.ops.pad(starts, [(0, 0), (before, after), (before, after), (0, 0)])
        keep = 1 - keras.ops.max_pool(starts, size, strides=1, padding="same")
        return inputs * keep * (keras.ops.cast(keras.ops.size(keep), keep.dtype) / keras.ops.sum(keep))


def timm_drop_block(
    shape: tuple[int, ...], rate: float, backward: bool, **options: Any
) -> dict[str, Callable[[], Any]]:
    """Returns timm's DropBlock by memory format; nothing if timm or PyTorch is not installed.

    The file of the layer is loaded alone, since the package imports torchvision, which the layer does not need.
    """
    package = importlib.util.find_spec("timm")
    if package is None or importlib.util.find_spec("torch") is None:
        return {}
    import torch

    file = Path(package.submodule_search_locations[0]) / "layers" / "drop.py"
    spec = importlib.util.spec_from_file_location("timm_drop", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    layer = module.DropBlock2d(rate, 7, **options).train()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype("float32").transpose(0, 3, 1, 2))

    def in_format(which: Any) -> Callable[[], Any]:
        own = x.to(memory_format=which, copy=True).requires_grad_(backward)

        def run() -> Any:
            y = layer(own)
            return (y, torch.autograd.grad(y, own, y)) if backward else y

        return run

    return {
        "contiguous": in_format(torch.contiguous_format),
        "channels_last": in_format(torch.channels_last),
    }


def torch_unet_step(rate: float | None, channels_last: bool) -> tuple[Callable[[], Any], int]:
    """Returns a training step of the U-Net of `training.py` in PyTorch, and the number of its parameters."""
    import torch
    from torch import nn

    class Convs(nn.Sequential):
        def __init__(self, before: int, after: int) -> None:
            drop = [] if rate is None else [nn.Dropout(rate)]
            first, second = (nn.Conv2d(n, after, 3, padding=1) for n in (before, after))
            super().__init__(first, nn.ReLU(), *drop, second, nn.ReLU(), *drop)

    class UNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = [1, 32, 64, 128, 256, 512]
            pairs = list(zip(widths, widths[1:], strict=False))
            self.encoder = nn.ModuleList(Convs(before, after) for before, after in pairs)
            self.up = nn.ModuleList(nn.ConvTranspose2d(after, n, 2, 2) for n, after in pairs[1:])
            self.decoder = nn.ModuleList(Convs(2 * n, n) for n in widths[1:-1])
            self.head = nn.Conv2d(32, 1, 1)

        def forward(self, x: Any) -> Any:
            skips = []
            for convs in self.encoder:
                x = convs(x if not skips else nn.functional.max_pool2d(skips[-1], 2))
                skips.append(x)
            for up, convs, skip in reversed(list(zip(self.up, self.decoder, skips, strict=False))):
                x = convs(torch.cat([skip, up(x)], 1))
            return self.head(x)

    torch.manual_seed(0)
    model, x = UNet().train(), torch.rand(4, 1, 128, 128)
    y = (torch.rand(4, 1, 128, 128) > 0.5).float()
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        optimizer.step()

    return step, sum(p.numel() for p in model.parameters())
