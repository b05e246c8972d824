"""The command line: `dropzoo --help` lists its commands."""

import sys
import warnings
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from dropzoo.cli import bench, calibrations, data, measurements, models, predictions, runs, serve, sweeps

app = typer.Typer(
    help="CNNs and U-Nets for Keras in which every dropout site has a name.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False, emoji=False)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Defines the options that come before a command. `main` reads `--debug` itself, since errors end there."""


app.command("list")(models.list_)
for command in (
    models.sites,
    models.plot,
    models.retrofit,
    data.inspect,
    runs.train,
    runs.evaluate,
    calibrations.calibrate,
    sweeps.sweep,
    sweeps.recommend,
    predictions.predict,
    measurements.measure,
    runs.export,
    serve.serve,
    bench.bench,
    bench.bench_input,
    runs.demo,
):
    app.command()(command)


def main(args: list[str] | None = None) -> None:
    """Runs the command line and exits.

    The status is 0 for success, 2 for bad input, which is reported on one line, 1 for any other error, and 130 for
    an interrupt.

    Args:
        args: List of str, the arguments; those of the process by default. Commands find them as `context.obj`.
    """
    args = sys.argv[1:] if args is None else args
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            status = app(args, prog_name="dropzoo", standalone_mode=False, obj=args)
    except typer.Exit as stop:
        status = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        errors.print("Stopped")
        status = 130
    except Exception as error:
        if "--debug" in args:
            raise
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)  # a command that succeeds returns None


def _warn(message: Warning | str, *_: Any) -> None:
    """Prints a warning without the line of code that it comes from."""
    errors.print(f"[yellow]Warning:[/yellow] {escape(str(message))}", soft_wrap=True)


def _report(error: Exception) -> int:
    """Prints an error without its traceback, and returns the exit status."""
    if hasattr(error, "format_message"):  # an unknown option, or a missing argument
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "dropzoo"
        errors.print(f"[red]Error:[/red] {escape(error.format_message())} See: {command} --help", soft_wrap=True)
        return 2
    kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    errors.print(f"[red]Error:[/red] {kind}{escape(str(error))}", soft_wrap=True)
    if kind:
        errors.print("dropzoo --debug ... shows the traceback")
    return 2 if not kind else 1
