"""Errors of the API in the words of the command line."""

import contextlib
from collections.abc import Iterator

#: The options of the command line that replace arguments of the API in errors.
_OPTIONS = {
    "overwrite=True": "--overwrite",
    "num_samples=0": "--num-samples 0",
    "`num_samples`": "--num-samples",
    "(`value_range`)": "(--value-range)",
    "image_dtype=": "--image-dtype ",
    "input_range=": "--input-range ",
    "from_logits=True": "--from-logits",
    "from_logits=False": "--probabilities",
    "task=": "--task ",
    "sites='search'": "--sites search",
    "sites='as_is'": "--sites as_is",
    "temperature='per_class'": "--temperature per_class",
    "temperature=True instead of 'per_class'": "--temperature one instead of per_class",
    "`classes`": "--classes",
    " format=": " --format ",
    " precision=": " --precision ",
    "`precision`": "--precision",
}


@contextlib.contextmanager
def options_in_errors() -> Iterator[None]:
    """Replaces the arguments of the API by the options of the command line in the errors of the block."""
    try:
        yield
    except (ValueError, ImportError) as error:
        said = str(error)
        for argument, option in _OPTIONS.items():
            said = said.replace(argument, option)
        raise ValueError(said) from error
