"""Errors of the API in the words of the command line."""

import contextlib
from collections.abc import Iterator

#: The options of the command line that replace arguments of the API in errors.
_OPTIONS = {
    "Build it with dropout: models.build_model(..., dropout={'head': 0.5}); or add dropout: "
    "models.retrofit(model, {'name': 0.5})": "Leave out --mc; or train it with dropout, such as "
    "--dropout head=0.5; or add dropout with dropzoo retrofit",
    "share_weights=True": "share_weights=True in Python (models.retrofit)",
    "Calibrate with sampling='fixed'": "Pass --no-calibration, calibrate in Python with sampling='fixed'",
    "`resize`": "--resize",
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
