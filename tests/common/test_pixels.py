"""Which images cannot be of the range that a model takes: far outside it, or fractions of 1 for pixels up to 255.

The rule: no image that a camera may take is refused, so dark images pass, and so does what a resize adds.
"""

import numpy as np
import pytest

from dropzoo.common.pixels import Pixels, check_range, doubt

UNIT, BYTES, SYMMETRIC, DEEP = Pixels(), Pixels(0, 255), Pixels(-1, 1), Pixels(0, 65535)
CASES = {
    "as it should be": (UNIT, [0.0, 0.5, 1.0], True),
    "a resize adds a little": (UNIT, [-0.05, 1.08], True),
    "bytes for fractions": (UNIT, [0.0, 255.0], False),
    "dark bytes for fractions": (UNIT, [0.0, 2.0], False),
    "from -1 for fractions": (UNIT, [-1.0, 1.0], False),
    "black": (BYTES, [0.0, 0.0], True),
    "black and almost black": (BYTES, [0.0, 1.0], True),
    "fractions for bytes": (BYTES, [0.0, 0.5, 1.0], False),
    "dark fractions for bytes": (BYTES, [0.01, 0.02], False),
    "from -1 for bytes": (BYTES, [-1.0, -0.3, 0.9], False),
    "resized bytes": (BYTES, [-3.2, 260.7], True),
    "whole numbers of 16 bits for bytes": (BYTES, [0, 4095], False),
    "standardised for bytes": (BYTES, [-2.1, 2.6], True),  # as dark as this; it cannot be told
    "caffe for bytes": (BYTES, [-123.7, 151.0], False),
    "bytes for -1 to 1": (SYMMETRIC, [0.0, 255.0], False),
    "fractions for -1 to 1": (SYMMETRIC, [0.0, 1.0], True),  # they may be bright
    "fractions for 16 bits": (DEEP, [0.0, 0.7], False),
    "dark whole numbers for 16 bits": (DEEP, [0, 200], True),
}


@pytest.mark.parametrize(("pixels", "values", "right"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_images_that_cannot_be_right(pixels, values, right, dtype):
    text = doubt(np.array(values, dtype), pixels)
    assert (text is None) == right
    if text:  # says both, and what to do
        assert f"{pixels.low:g} to {pixels.high:g}" in text and f"to {max(values):.4g}" in text
        assert text.endswith("whole numbers pass") or f"Scale them to {pixels.low:g}" in text


def test_no_numbers_are_no_doubt():
    assert doubt(np.zeros((0, 3)), BYTES) is None and doubt(np.array(["a"]), BYTES) is None
    assert doubt(np.array([255], "uint8"), UNIT) is not None and doubt(np.array([1], "uint8"), UNIT) is None


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [(UNIT, 0.5), (BYTES, 127.5), (SYMMETRIC, 0.0), (DEEP, 32767.5), (Pixels(0, 4095), 32767.5)],
)
def test_from_files_to_what_the_model_takes(pixels, expected):
    """A model of 12 bits takes the values of its files, which have 16, as they are."""
    np.testing.assert_allclose(pixels.scaled(np.full((2, 3), 0.5)), expected)


def test_the_order_of_the_channels():
    image = np.array([[0.0, 0.5, 1.0]])
    np.testing.assert_allclose(Pixels(0, 255, order="bgr").scaled(image), [[255, 127.5, 0]])
    np.testing.assert_allclose(Pixels(0, 255, order="rgb").scaled(image), [[0, 127.5, 255]])
    np.testing.assert_allclose(Pixels(0, 255, order="bgr").spread(image), [[0, 127.5, 255]])


@pytest.mark.parametrize("value", [(1, 0), (0, 0), (0, float("inf")), (0, float("nan")), 255, "0,255", (0, 1, 2)])
def test_bad_ranges(value):
    with pytest.raises(ValueError, match="`input_range` must be the values of a black and of a white pixel"):
        check_range(value)
