"""The command line: `dropzoo --help` lists its commands."""

import inspect
import sys
import warnings
from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from dropzoo import __version__
from dropzoo.cli import (
    bench,
    calibrations,
    data,
    doctor,
    measurements,
    models,
    predictions,
    runs,
    serve,
    sweeps,
    training,
)
from dropzoo.cli.console import with_json
from dropzoo.cli.errors import Command, in_options
from dropzoo.cli.quiet import silence_tensorflow

app = typer.Typer(
    help="CNNs and U-Nets for Keras in which every dropout site has a name.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False, emoji=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dropzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of errors, and TensorFlow's log messages.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Defines the options that come before a command. `main` reads `--debug` itself, since errors end there."""


def _unwrapped(text: str) -> str:
    """Joins the lines of each paragraph: Typer does so for the first one only."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


app.command("list", cls=Command, help=_unwrapped(models.list_.__doc__ or ""))(with_json(models.list_))
for command in (
    with_json(models.sites),
    models.plot,
    models.retrofit,
    with_json(data.inspect),
    with_json(training.train),
    with_json(runs.evaluate),
    with_json(calibrations.calibrate),
    sweeps.sweep,
    with_json(sweeps.recommend),
    with_json(predictions.predict),
    measurements.measure,
    runs.export,
    serve.serve,
    with_json(bench.bench),
    with_json(bench.bench_input),
    training.demo,
    doctor.doctor,
):
    app.command(cls=Command, help=_unwrapped(command.__doc__ or ""))(command)


#: Commands of 0.2 with an option that is accepted until version 0.4.
_HAD_CALIBRATION = ("evaluate", "predict", "measure", "export")


def main(args: list[str] | None = None) -> None:
    """Runs the command line and exits.

    The status is 0 for success, 2 for bad input, which is reported on one line, 1 for any other error, and 130 for
    an interrupt.

    Args:
        args: List of str, the arguments; those of the process by default. Commands find them as `context.obj`.
    """
    args = sys.argv[1:] if args is None else args
    if "--calibration" in args and next((each for each in args if each[0] != "-"), "") in _HAD_CALIBRATION:
        way = "Leave it out: a calibration is used unless you pass --no-calibration"
        errors.print(f"[yellow]Warning:[/yellow] The option --calibration will be refused in 0.4. {way}")
        args = [each for each in args if each != "--calibration"]
    if "--debug" not in args:
        silence_tensorflow()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = partial(_warn, set())
            status = app(args, prog_name="dropzoo", standalone_mode=False, obj=args)
    except typer.Exit as stop:
        status = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        errors.print("Stopped")
        status = 130
    except Exception as error:
        if "--debug" in args and not hasattr(error, "format_message"):
            raise
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)  # a command that succeeds returns None


def _warn(given: set[str], message: Warning | str, *_: Any) -> None:
    """Prints a warning without the line of code that it comes from, unless it was given before."""
    if str(message) not in given:
        given.add(str(message))
        errors.print(f"[yellow]Warning:[/yellow] {escape(in_options(str(message)))}", soft_wrap=True)


def _report(error: Exception) -> int:
    """Prints an error without its traceback, and returns the exit status."""
    if hasattr(error, "format_message"):  # an unknown option, or a missing argument
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "dropzoo"
        said = error.format_message()
        stop = "" if said.endswith((".", "?", "!")) else "."
        errors.print(f"[red]Error:[/red] {escape(said)}{stop} See: {command} --help", soft_wrap=True)
        return 2
    kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    errors.print(f"[red]Error:[/red] {kind}{escape(str(error))}", soft_wrap=True)
    if kind:
        errors.print("dropzoo --debug ... shows the traceback")
    return 2 if not kind else 1
