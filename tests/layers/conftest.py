"""Set-up shared by the tests of the layers: which draws are compiled."""

from collections.abc import Callable

import pytest

from dropzoo.layers.draws.xla import XlaDraw


@pytest.fixture
def compile_from(monkeypatch) -> Callable[[int], None]:
    """Sets from how many elements on draws are compiled: 0 compiles all of them."""
    return lambda elements: monkeypatch.setattr(XlaDraw, "compile_from", elements)


@pytest.fixture(params=["plain", "compiled"])
def path(request, compile_from) -> None:
    """Runs a test twice: with no draw compiled, and with small tensors compiled as large ones are."""
    compile_from(0 if request.param == "compiled" else 1 << 30)
