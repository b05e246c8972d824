"""Errors and warnings of the API in the words of the command line."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

#: The options of the command line that replace arguments of the API in errors.
_OPTIONS = {
    "Build it with dropout: models.build_model(..., dropout={'head': 0.5}); or add dropout: "
    "models.retrofit(model, {'name': 0.5})": "Leave out --mc; or train it with dropout, such as dropzoo train "
    "--dropout head=0.5; or add dropout with dropzoo retrofit",
    "share_weights=True": "share_weights=True in Python (models.retrofit)",
    "Calibrate with sampling='fixed'": "Pass --no-calibration, calibrate in Python with sampling='fixed'",
    "`resize`": "--resize",
    "overwrite=True": "--overwrite",
    "num_samples=0": "--num-samples 0",
    "`num_samples`": "--num-samples",
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

_OPTION = re.compile(r"--[a-z][a-z0-9-]*")
# An option after an argument of the API, as in "masks_as='palette' (--masks-as palette)".
_BRACKET = re.compile(r"\s\((--[a-z][^()]*)\)")
_OTHER_COMMAND = re.compile(r"\bdropzoo [a-z][^;\n]*")
_VALUE = r"(?:'[^']*'|\{[^{}]*\}|\((?:[^()]|\([^()]*\))*\)|-?\w+(?:\.\w+)*(?![\w.]*\w))"

# The options of the command that is running; None outside of the command line.
_running: ContextVar[frozenset[str] | None] = ContextVar("running", default=None)


class _InOptions(ValueError):
    """An error that is in the words of the command line already."""


class Command(TyperCommand):
    """A command whose errors and warnings never name an option that it does not have."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        flags = (flag for each in self.get_params(ctx) for flag in (*each.opts, *each.secondary_opts))
        token = _running.set(frozenset({*flags, "--debug"}))
        try:
            return super().invoke(ctx)
        except _InOptions:
            raise
        except ValueError as error:
            if (said := in_options(str(error))) == str(error):
                raise
            raise _InOptions(said) from error
        finally:
            _running.reset(token)


@contextlib.contextmanager
def options_in_errors(instead: Mapping[str, str | None] | None = None) -> Iterator[None]:
    """Replaces the arguments of the API by the options of the command line in the errors of the block.

    Args:
        instead: Dict from options to those that have their place in this block, or to None for options that do
            not count in it.
    """
    try:
        yield
    except _InOptions:
        raise
    except (ValueError, ImportError) as error:
        raise _InOptions(in_options(str(error), instead)) from error


def in_options(text: str, instead: Mapping[str, str | None] | None = None) -> str:
    """Returns a text of the API in the words of the command that is running.

    Arguments become options. If the command does not have an option, the argument stays, and advice to pass it
    says that this is for Python.

    Args:
        text: The text of an error or a warning.
        instead: As for `options_in_errors`.
    """
    for option, other in (instead or {}).items():
        text = text if other is None else re.sub(rf"{option}(?![\w-])", other, text)
    for argument, option in _OPTIONS.items():
        has = lacking(option) == set()
        valued = argument.endswith("=")
        # Where the option follows in brackets, the argument stays.
        pattern = f"{re.escape(argument)}({_VALUE if valued else ''})" + r"(?!\w| \(--)"
        if has:
            text = re.sub(pattern, lambda found, option=option: option + found[1], text)  # type: ignore[misc]
        else:
            text = re.sub(rf"(?<=[Pp]ass ){pattern}(?! \(in Python\))", r"\g<0> (in Python)", text)

    def bracket(found: re.Match[str]) -> str:
        if not lacking(found[1]) and not set(_OPTION.findall(found[1])) & set(instead or {}):
            return found[0]
        before = text[: found.start()]
        is_advice = max(before.rfind("pass "), before.rfind("Pass ")) > before.rfind("Received:")
        return " (in Python)" if is_advice else ""

    return _BRACKET.sub(bracket, text)


def lacking(text: str) -> set[str]:
    """Returns the options in a text that the running command does not have, except those of a named command."""
    known = _running.get()
    return set() if known is None else set(_OPTION.findall(_OTHER_COMMAND.sub("", text))) - known
