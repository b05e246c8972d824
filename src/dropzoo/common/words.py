"""Words of messages that depend on a number."""


def count_of(count: int, one: str, many: str | None = None) -> str:
    """Returns a count with the words that go with it, such as `"1 image"` or `"2,000 images"`.

    Args:
        count: Int, the number.
        one: Str, the words after the number 1, such as `"image"` or `"image is"`.
        many: Str, the words after any other number; None for `one` with an s at its end.

    Returns:
        A str, with a comma between thousands.

    Example:
    >>> count_of(1, "image is", "images are")
    '1 image is'
    >>> count_of(2000, "image")
    '2,000 images'
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
