"""The commands that measure: bench-input and bench."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from dropzoo.cli.console import console
from dropzoo.cli.options import DataOption, DropoutOption, InputOptions, ModelOptions, with_groups
from dropzoo.cli.parsing import parse_dropout, parse_options


@with_groups
def bench_input(
    data: DataOption,
    reading: InputOptions,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="About how long to measure, in seconds.")
    ] = 10.0,
) -> None:
    """Measures the speed of the input pipeline alone, in images per second, in the first epoch and in later ones.

    To compare it with the training steps, run: dropzoo bench

    Example: dropzoo bench-input --data digit_scenes --augment yes
    """
    from dropzoo import training
    from dropzoo.runs import throughput

    loaded = training.load_data(data, **reading.arguments())
    with console.status("Reading batches ..."):
        found = throughput.input_rate(loaded, seconds)
    table = Table("input of " + escape(data), "", show_header=True)
    table.add_row("first batch after", f"{found.first_batch:.2f} s")
    table.add_row("first epoch", f"{found.filling:,.0f} images/s")
    steady = "not reached: pass more --seconds" if found.steady is None else f"{found.steady:,.0f} images/s"
    table.add_row("later epochs", steady)
    console.print(table)


@with_groups
def bench(
    model: Annotated[str, typer.Argument(help="Name of a model. To list the names: dropzoo list models.")],
    data: DataOption,
    dropout: DropoutOption = None,
    option: ModelOptions = None,
    *,
    reading: InputOptions,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Number of training steps in each measurement.")
    ] = 20,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="About how long to measure the input pipeline, in seconds.")
    ] = 5.0,
) -> None:
    """Measures which is slower: the input pipeline or the training steps (with and without XLA).

    Example: dropzoo bench unet --data digit_scenes --dropout 0.3 --option filters=16
    """
    from dropzoo.runs import throughput
    from dropzoo.runs.config import RunConfig
    from dropzoo.runs.devices import prepare_devices

    console.print(f"On {prepare_devices()}")
    config = RunConfig(
        model=model,
        data=data,
        dropout=parse_dropout(dropout),
        options=parse_options(option),
        **reading.arguments(),
    )
    loaded = config.load_data()
    with console.status("Training steps ..."):
        times = throughput.step_times(config, loaded, steps)
    with console.status("Reading batches ..."):
        found = throughput.input_rate(loaded, seconds)
    table = Table("", "ms a step", "images/s")
    for jit_compile, seconds_a_step in times.items():
        title = "step, jit_compile=True" if jit_compile else "step, jit_compile=False"
        table.add_row(title, f"{1e3 * seconds_a_step:.1f}", f"{reading.batch_size / seconds_a_step:,.0f}")
    rate = found.steady or found.filling
    title = "input alone, later epochs" if found.steady else "input alone, first epoch"
    table.add_row(title, f"{1e3 * reading.batch_size / rate:.1f}", f"{rate:,.0f}")
    console.print(table)
    fastest = min(times, key=times.__getitem__)
    share = rate * times[fastest] / reading.batch_size
    verdict = f"The input is {share:.1f} times as fast as the steps"
    verdict += (
        ": it keeps up."
        if share > 1.2
        else (": it only just keeps up." if share > 1 else ": the device waits for it.")
        + " Cache the images, make them smaller, or augment less."
    )
    console.print(f"{verdict} The fastest steps have jit_compile={fastest}.")
