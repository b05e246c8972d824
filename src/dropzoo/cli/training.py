"""The commands that train models: train, and the demo."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dropzoo.cli.console import console, say
from dropzoo.cli.data_options import FolderOptions
from dropzoo.cli.errors import options_in_errors
from dropzoo.cli.options import (
    AugmentOption,
    DataOption,
    DropoutOption,
    ModelOptions,
    RateScheduleOption,
    TrainingOptions,
    with_groups,
)
from dropzoo.cli.parsing import data_name, parse_augment, parse_dropout, parse_options, parse_rate_schedule
from dropzoo.common.shell import quote
from dropzoo.runs.tables import figures_table


@with_groups
def train(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Name of a model. To list the names: dropzoo list models.")],
    data: DataOption,
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; runs/MODEL-DATA by default.")
    ] = None,
    *,
    dropout: DropoutOption = None,
    option: ModelOptions = None,
    rate_schedule: RateScheduleOption = None,
    augment: AugmentOption = None,
    label_smoothing: Annotated[
        float, typer.Option("--label-smoothing", help="Amount of label smoothing, in [0, 1).")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the initial weights, the order of the images and the dropout.")
    ] = 0,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            help="Training settings: small (for up to a few thousand images), medium, or a list such as "
            '"optimizer=sgd; mixup=0.2". Options that you pass override it.',
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after this many epochs without a better validation loss."),
    ] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Keep the model of the epoch with the best validation loss.")
    ] = False,
    training: TrainingOptions,
    reading: FolderOptions,
    log: Annotated[
        str | None,
        typer.Option(
            "--log",
            help="Where to log the metrics of each epoch, and the rate and dropped fraction of each site: csv, "
            'tensorboard, mlflow, or several, as in "csv,mlflow".',
        ),
    ] = None,
    steps_per_execution: Annotated[
        int,
        typer.Option(
            "--steps-per-execution",
            min=1,
            help="Steps to run in each call of the graph; more is faster if steps are short.",
        ),
    ] = 1,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Number of processes on this machine that share each batch.")
    ] = 1,
    members: Annotated[
        str | None,
        typer.Option(
            "--members",
            help='Train an ensemble of this many runs, one after another; or "snapshots:5", five snapshots '
            "of a single run.",
        ),
    ] = None,
) -> None:
    """Trains a model and writes the run to a folder. To continue a stopped run, repeat the command.

    Example: dropzoo train unet --data digit_scenes --dropout "bottleneck*=0.5" --option filters=16 --epochs 5
    """
    from dropzoo.models import list_sites
    from dropzoo.runs.config import RunConfig
    from dropzoo.runs.data import judged_on, load_run_data, read_info
    from dropzoo.runs.description import show
    from dropzoo.runs.logs import parse_log
    from dropzoo.runs.members import first_run, parse_members, snapshot_figures, train_members
    from dropzoo.runs.presets import recipe_of
    from dropzoo.runs.run import train_run
    from dropzoo.training.loop.workers import run_workers

    count, snapshots = parse_members(members)
    if count and workers > 1:
        raise ValueError(
            "`--members` trains one member after another and cannot use several workers. Pass --workers 1"
        )
    asked: dict[str, Any] = {
        "augment": parse_augment(augment),
        "label_smoothing": label_smoothing,
        **vars(training),
    }
    if recipe is not None:
        asked |= (settings := {n: v for n, v in recipe_of(recipe, model).items() if not _was_given(context, n)})
    config = RunConfig(
        snapshots=snapshots,
        model=model,
        data=data,
        dropout=parse_dropout(dropout),
        options=parse_options(option),
        rate_schedule=parse_rate_schedule(rate_schedule),
        seed=seed,
        patience=patience,
        best=best,
        **asked,
        **vars(reading),
    )
    folder = out or Path("runs") / f"{model}-{data_name(data)}"
    if workers > 1 and "TF_CONFIG" not in os.environ:
        load_run_data(config, folder)  # prepares the data once, before the workers read them at the same time
        raise typer.Exit(run_workers([sys.executable, "-m", "dropzoo.cli", *context.obj], workers))
    if recipe is not None:  # only here, so that with several workers it is shown once
        say(f"Recipe {recipe}: {', '.join(f'{name} {value}' for name, value in settings.items())}")
    options: dict[str, Any] = {
        "say": say,
        "steps_per_execution": steps_per_execution,
        "log": parse_log(log),
        "show": lambda found: show(found, console.print, say),
    }
    trained = None
    with options_in_errors():
        if count:
            columns = train_members(config, folder, count, **options)
        else:
            trained, figures = train_run(config, folder, **options)
            columns = snapshot_figures(folder, figures) if snapshots else {judged_on(read_info(folder)): figures}
    console.print(figures_table(columns, judged_on(read_info(first_run(folder))) if members else ""))
    drops = trained is not None and not members and any(site.spec for site in list_sites(trained))
    say(f"Saved in {folder}. Next: dropzoo evaluate {quote(str(folder))}{' --mc 30' if drops else ''}")


def demo(
    out: Annotated[Path, typer.Option("--out", help="The demo's folder.")] = Path("demo"),
) -> None:
    """Trains a CNN and a U-Net with and without dropout, samples and exports them, and writes OUT/report.html.

    Example: dropzoo demo --out demo
    """
    from dropzoo.demo import run_demo

    run_demo(out, say=say)


def _was_given(context: typer.Context, name: str) -> bool:
    """Returns whether an option is on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
