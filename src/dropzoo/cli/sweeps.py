"""The commands on sweeps: run one, and print its recommendation."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dropzoo.cli.console import console, say
from dropzoo.cli.data_options import FolderOptions
from dropzoo.cli.options import EpochsOption, ModelOptions, TrainingOptions, with_groups
from dropzoo.cli.parsing import data_name, parse_augment, parse_dropout, parse_options, parse_resources
from dropzoo.common.shell import quote

if TYPE_CHECKING:
    from dropzoo.sweep.space import Space

_SPACE = "What to try"
_RUNNING = "How the sweep runs"


def _many(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=f"Repeatable: {text}", rich_help_panel=_SPACE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialOptions(TrainingOptions):
    """The options of training, with the defaults of `Space`."""

    epochs: EpochsOption = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceOptions:
    """The options that define a space on the command line."""

    sites: Annotated[
        list[str] | None,
        _many(
            'patterns of the sites to drop at, separated by commas, such as "module?,dense*". To list the '
            "sites: dropzoo sites.",
            "--sites",
        ),
    ] = None
    spec: Annotated[
        list[str] | None,
        _many(
            'a dropout layer to use at the sites, such as dropout or "drop_block2d:block_size=3".',
            "--spec",
            "--variant",
        ),
    ] = None
    rate: Annotated[list[float] | None, _many("the fraction to drop; 0.1, 0.3, 0.5 by default.", "--rate")] = None
    rate_schedule: Annotated[
        list[str] | None,
        _many(
            'constant, linear, cosine, curriculum, early, late; or with options, as in "late:rate,start=0.5", '
            "where the word rate stands for each --rate.",
            "--rate-schedule",
        ),
    ] = None
    plan: Annotated[
        list[str] | None,
        _many('a complete plan, given as a name, a rate, or "pattern=spec;pattern=spec".', "--plan"),
    ] = None
    normalization: Annotated[
        list[str] | None,
        _many("the normalization of the models (batch, group, layer or none).", "--normalization"),
    ] = None
    augment: Annotated[
        list[str] | None,
        _many(
            'none, yes (mild random augmentation), or your own, as in "rotation=15,crop=128".',
            "--augment",
        ),
    ] = None
    weight_decay: Annotated[
        list[float] | None, _many("an L2 penalty on the models' weights.", "--weight-decay")
    ] = None
    label_smoothing: Annotated[list[float] | None, _many("label smoothing, in [0, 1).", "--label-smoothing")] = (
        None
    )
    recipe: Annotated[
        list[str] | None,
        _many(
            'small, medium, a list of training settings such as "optimizer=sgd:momentum=0.9; mixup=0.2", or own '
            "(no recipe, only the options of this command).",
            "--recipe",
        ),
    ] = None
    seeds: Annotated[
        int,
        typer.Option(
            "--seeds",
            min=1,
            help="How many times to train each combination, each time with another seed. Without --folds, "
            "intervals need at least 2; 5 are better.",
        ),
    ] = 3
    folds: Annotated[
        int,
        typer.Option(
            "--folds",
            min=0,
            help="Number of folds of a cross-validation, for small data sets; 0 for a single split.",
        ),
    ] = 0
    option: ModelOptions = None

    def space(
        self,
        models: list[str],
        data: str,
        training: "TrialOptions",
        folder: FolderOptions,
        running: "RunningOptions",
    ) -> "Space":
        """Returns the space; an axis whose flag is not given keeps the default of `Space`."""
        from dropzoo.sweep.space import Space

        axes: dict[str, Any] = {
            "sites": self.sites,
            "specs": self.spec,
            "rates": self.rate,
            "rate_schedules": self.rate_schedule,
            "plans": [parse_dropout(each.split(";"), "--plan") for each in self.plan or ()],
            "normalizations": [None if each == "none" else each for each in self.normalization or ()],
            "augments": [parse_augment(each) for each in self.augment or ()],
            "weight_decays": self.weight_decay,
            "label_smoothings": self.label_smoothing,
            "recipes": self.recipe,
        }
        others: dict[str, Any] = {
            "seeds": range(self.seeds),
            "folds": self.folds,
            "options": parse_options(self.option),
            "strategy": running.strategy,
            "samples": running.samples,
        }
        given = {name: values for name, values in axes.items() if values}
        return Space(models=tuple(models), data=data, **given, **others, **vars(training), **vars(folder))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningOptions:
    """The options that say how a sweep runs."""

    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            help="grid: all plans; random: --samples plans for each model, chosen at random; halving: all "
            "plans for a few epochs, then the best third for more epochs, and so on.",
            rich_help_panel=_RUNNING,
        ),
    ] = "grid"
    samples: Annotated[
        int,
        typer.Option(
            "--samples",
            min=1,
            help="Number of plans for each model, for --strategy random.",
            rich_help_panel=_RUNNING,
        ),
    ] = 20
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            help="local: in this process, with one graph for all rates; or ray.",
            rich_help_panel=_RUNNING,
        ),
    ] = "local"
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Number of trials that run at the same time, for --engine ray.",
            rich_help_panel=_RUNNING,
        ),
    ] = None
    resource: Annotated[
        list[str] | None,
        typer.Option(
            "--resource",
            help="Repeatable, for --engine ray: resources for each trial, such as cpu=2, gpu=0.5, memory=4e9 "
            "(bytes).",
            rich_help_panel=_RUNNING,
        ),
    ] = None
    num_samples: Annotated[
        int,
        typer.Option(
            "--mc",
            "--num-samples",
            min=0,
            help="Number of samples for measuring the Monte-Carlo latency; 0 to skip this.",
            rich_help_panel=_RUNNING,
        ),
    ] = 30
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials again.", rich_help_panel=_RUNNING)
    ] = False


@with_groups
def sweep(
    context: typer.Context,
    models: Annotated[
        list[str], typer.Argument(help="Names of models, or one Python file that defines `space = Space(...)`.")
    ],
    *,
    data: Annotated[
        str | None, typer.Option("--data", help="digits, digit_scenes, a TFDS name, or a folder.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The sweep's folder; sweeps/MODEL-DATA or sweeps/FILE by default.")
    ] = None,
    axes: SpaceOptions,
    training: TrialOptions,
    folder: FolderOptions,
    running: RunningOptions,
) -> None:
    """Finds out where, what and how much to drop: trains all combinations and writes OUT/report.html.

    The sweep combines each --sites with each --spec, --rate and --rate-schedule, and adds each --plan. It trains
    all of these, and the model without dropout, with every combination of --normalization, --augment,
    --weight-decay, --label-smoothing and --recipe. Trials with the same seed start from the same weights and see
    the same batches, so they can be compared in pairs.

    To continue a stopped sweep, repeat the command; you can also add values to its options. When it is done, run:
    dropzoo recommend OUT

    Example: dropzoo sweep simple_cnn --data digits --sites "module?" --sites "dense*" --rate 0.2 --rate 0.5

    Example: dropzoo sweep unet --data digit_scenes --sites "skip*" --sites "bottleneck*,decoder*" --plan unet_2015

    Example: dropzoo sweep lenet5 --data fashion_mnist --sites "dense*" --strategy halving --epochs 27

    Example: dropzoo sweep space.py --engine ray --workers 4
    """
    from dropzoo.sweep.run import load_space, run_sweep

    if len(models) == 1 and models[0].endswith(".py"):
        _refuse_space_flags(context)
        space = load_space(Path(models[0]))
        default = Path("sweeps") / Path(models[0]).stem
    else:
        if data is None:
            raise ValueError("--data is missing. Pass digits, digit_scenes, a TFDS name, or a folder")
        space = axes.space(models, data, training, folder, running)
        default = Path("sweeps") / f"{'-'.join(models)}-{data_name(data)}"
    target = out or default
    report = run_sweep(
        space,
        target,
        engine=running.engine,
        workers=running.workers,
        resources=parse_resources(running.resource),
        mc_samples=running.num_samples,
        retry_failed=running.retry_failed,
        console=console,
    )
    say(f"Wrote {report}. Next: dropzoo recommend {quote(str(target))}")


def recommend(
    file: Annotated[Path, typer.Argument(help="A sweep's folder, or its sweep.jsonl.")],
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="The validation metric to choose by: calibrated_nll (the default), nll, accuracy, mean_iou, "
            "brier or ece.",
        ),
    ] = None,
) -> None:
    """Recommends a plan from a sweep: the simplest one within one standard error of the best.

    The standard error is computed from the differences between trials of two plans with the same seed and
    fold. With a single pair there is no standard error, so the plan with the best mean is recommended. You can
    run this command while the sweep is running. A warning appears if the training runs were too short. The last
    line of the output is the command that trains the recommended plan.

    Example: dropzoo recommend sweeps/simple_cnn-digits

    Example: dropzoo recommend sweeps/simple_cnn-digits --by accuracy
    """
    from dropzoo.sweep.report import recommendation_text
    from dropzoo.sweep.screen import leaders_table

    rows, lines, command = recommendation_text(file, by)
    console.print(leaders_table(rows))
    for line in (*lines, command):
        say(line)


def _refuse_space_flags(context: typer.Context) -> None:
    """Refuses the flags that define a space, because the file defines it."""
    allowed = {"models", "out", *(field.name for field in dataclasses.fields(RunningOptions))}
    allowed -= {"strategy", "samples"}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            raise ValueError(
                f"{parameter.opts[0]} cannot be passed if a file defines the space; set it in that file"
            )
