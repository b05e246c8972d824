"""Dynamic batching: what is answered together, and how long anybody waits for it."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("orjson", reason="needs the extra `serve`")

from dropzoo.serving.server import batching
from dropzoo.serving.server.batching import Batcher
from dropzoo.serving.server.limits import Limits


class Doubling:
    """A model that doubles images, notes the shapes of its batches, and can be held up."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, inputs):
        self.begun.set()
        assert self.go_on.wait(30)
        self.shapes.append(inputs["x"].shape)
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}


def answers(model: Doubling, images: list[np.ndarray], limits: Limits) -> list:
    """The first image alone occupies the model; the rest arrive meanwhile."""

    async def send_all():
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(model, pool, limits)
            tasks = [asyncio.create_task(batcher({"x": images[0]}, images[0].size))]
            await asyncio.to_thread(model.begun.wait)
            tasks += [asyncio.create_task(batcher({"x": image}, image.size)) for image in images[1:]]
            await asyncio.sleep(0)
            model.go_on.set()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            return [each if isinstance(each, Exception) else each["y"] for each in found]

    return asyncio.run(send_all())


def batch(rows: int, size: int = 4, value: float = 1.0) -> np.ndarray:
    return np.full((rows, size, size, 1), value, "float32")


@pytest.mark.parametrize(
    ("rows", "limits", "expected"),
    [
        ([1, 1, 1, 1], {}, [1, 3]),
        ([1, 3, 2, 4, 1], {"max_batch_size": 5}, [1, 5, 5]),  # 3 + 2, though 3 + 1 would fit too; then 4 + 1
        ([1, 9, 1], {"max_batch_size": 5}, [1, 9, 1]),  # one that is larger goes alone
        ([1, 1, 1, 1, 1], {"max_pixels": 32}, [1, 2, 2]),
    ],
)
def test_as_many_as_fit_are_answered_together(rows, limits, expected):
    model, images = Doubling(), [batch(n, value=i) for i, n in enumerate(rows)]
    for image, found in zip(images, answers(model, images, Limits(**limits)), strict=True):
        np.testing.assert_array_equal(found, image * 2)
    assert [shape[0] for shape in model.shapes] == expected


def test_only_images_of_one_size_go_together_and_none_is_forgotten():
    model, sizes = Doubling(), [4, 4, 6, 4, 6]
    images = [batch(1, size) for size in sizes]
    assert [found.shape[1] for found in answers(model, images, Limits())] == sizes
    assert model.shapes == [(1, 4, 4, 1), (2, 4, 4, 1), (2, 6, 6, 1)]


def test_a_bad_request_fails_alone():
    found = answers(Doubling(), [batch(1), batch(1), batch(2, value=-1), batch(1)], Limits())
    assert [isinstance(each, ValueError) for each in found] == [False, False, True, False]


class Clock:
    """Time that passes only while the batcher sleeps."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("arriving", "seconds"), [(0, 0.0), (1, 0.2)])
def test_a_request_waits_for_others_that_are_coming_but_not_for_long(arriving, seconds, monkeypatch):
    model, clock = Doubling(), Clock()
    model.go_on.set()

    async def send() -> None:
        with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
            patch.setattr(batching, "time", clock)
            patch.setattr(asyncio, "sleep", clock.sleep)
            await Batcher(model, pool, Limits(max_wait_ms=200), lambda: arriving)({"x": batch(1)}, 16)

    asyncio.run(send())
    assert clock.now == pytest.approx(seconds)
