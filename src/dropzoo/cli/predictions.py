"""The command `dropzoo predict`."""

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from dropzoo.cli.console import console, say
from dropzoo.cli.errors import options_in_errors
from dropzoo.cli.options import (
    FromLogitsOption,
    InputRangeOption,
    NoCalibrationOption,
    SamplesOption,
    ValueRangeOption,
    with_groups,
)
from dropzoo.cli.parsing import parse_path, parse_range
from dropzoo.cli.progress import end, shown
from dropzoo.common.checks import unknown
from dropzoo.common.words import count_of

if TYPE_CHECKING:  # these import TensorFlow
    from dropzoo.predictions.run import Report
    from dropzoo.predictions.summary import Row
    from dropzoo.runs.predictor import Predictor

_SHOWN = 50  # rows of a table on the terminal
_COLUMNS = 8

PathsArgument = Annotated[
    list[Path],
    typer.Argument(
        help='Image files, folders, or patterns such as "scans/**/*.tif".', parser=parse_path, metavar="paths"
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelAnswers:
    """The options that say how a model answers."""

    num_samples: SamplesOption = None
    seed: Annotated[int, typer.Option("--seed", help="Seed of the samples.")] = 0
    input_range: InputRangeOption = None
    value_range: ValueRangeOption = None
    from_logits: FromLogitsOption = None
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="multi_class, binary, multi_label or regression. By default, it is read from the model.",
            show_default=False,
        ),
    ] = None
    no_calibration: NoCalibrationOption = False
    server: Annotated[
        str | None,
        typer.Option("--server", help="Address of a running dropzoo server to use instead of --model."),
    ] = None
    token: Annotated[str | None, typer.Option("--token", envvar="DROPZOO_TOKEN", help="Token of the server.")] = (
        None
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computing:
    """The options that say how many images are in a batch."""

    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Number of images or tiles in a batch. By default, this depends on their size.",
        ),
    ] = None
    tile: Annotated[
        int | None,
        typer.Option(
            "--tile", min=1, help="Compute larger images in tiles of this size. TIFF files are then read in parts."
        ),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option(
            "--overlap",
            min=0,
            help="Pixels that neighbouring tiles share; by default 64, but at most half a tile.",
        ),
    ] = None


@with_groups
def predict(
    paths: PathsArgument,
    model: Annotated[
        Path | None, typer.Option("--model", help="A run's folder, a .keras file or a SavedModel.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for masks and pictures.")] = Path("predictions"),
    *,
    save: Annotated[
        str | None,
        typer.Option(
            "--save",
            help="What to write for masks: mask, probabilities, entropy, mutual_information, inner, outer, "
            'overlay, picture, values, deviation, lower, upper; or "none". Default: "mask,picture"; for '
            'multi-label models, "mask,entropy"; for regression, "values,deviation".',
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="png (for masks with one class for each pixel; other maps are TIFF files), tiff, or npz with all "
            "arrays of an image. By default, tiff for images with a geographic position, which PNG cannot hold, "
            "and png for all others.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            help="Table (.csv or .json) with one row per image, the most uncertain first. For masks, "
            "OUT/predictions.csv by default.",
        ),
    ] = None,
    answers: ModelAnswers,
    computing: Computing,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Start again, and replace existing files. By default, finished images are skipped."
        ),
    ] = False,
) -> None:
    """Predicts labels (as a table) or masks (as files) of images, with the model's uncertainty.

    Run the same command again to continue after a stop, or to add images. Files that cannot be read are listed at
    the end; the exit status is then 1, or 2 if no image has an answer.

    Example: dropzoo predict cell.png --model runs/unet-nuclei

    Example: dropzoo predict scans --model runs/unet-nuclei --save mask,entropy --format tiff --table scans.csv
    """
    from dropzoo.predictions.run import Plan, predict_into
    from dropzoo.predictions.writing import FORMATS, parse_kinds

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # a file that is damaged is in the list
    if form is not None and form not in FORMATS:
        raise unknown("--format", form, FORMATS)
    kinds = None if save is None else parse_kinds(save)
    predictor = _predictor(model, answers, computing)
    if computing.tile is not None and not predictor.is_map:
        raise ValueError("--tile is for models that return maps. This model gives one answer: leave out --tile")
    if table is None and predictor.is_map:
        table = out / "predictions.csv"
    plan = Plan(
        out=out,
        kinds=kinds,
        form=form,
        table=table,
        batch_size=computing.batch_size,
        tile=computing.tile,
        overlap=min(64, (computing.tile or 128) // 2) if computing.overlap is None else computing.overlap,
        overwrite=overwrite,
        settings=_settings(model, answers, predictor),
    )
    with options_in_errors():
        report = predict_into(predictor, paths, plan, shown, lambda key, path: say(f"{key} -> {path}"))
    _tell(report)


def _predictor(model: Path | None, answers: ModelAnswers, computing: Computing) -> "Predictor":
    """Loads what answers: a model, or a server."""
    from dropzoo.runs.predictors import load_predictor

    if (model is None) == (answers.server is None):
        raise ValueError(
            "Pass --model with a run's folder, a .keras file or a SavedModel; or --server with an address"
        )
    if model is None:
        from dropzoo.predictions.remote import connect

        _check_server(answers, computing)
        if computing.tile is not None:
            raise ValueError(
                "--tile needs the model itself, to use the same dropout masks in all tiles. Pass --model"
            )
        return connect(str(answers.server), answers.token)
    if computing.overlap is not None and computing.tile is None:
        raise ValueError("`--overlap` is the number of pixels that neighbouring tiles share. Pass --tile too")
    known: dict[str, Any] = {"input_range": parse_range(answers.input_range), "from_logits": answers.from_logits}
    known |= {"calibrated": not answers.no_calibration, "seed": answers.seed, "task": answers.task}
    known |= {"value_range": answers.value_range}
    known |= {"votes": True} if computing.tile is None else {"sampling": "fixed"}
    with options_in_errors():
        return load_predictor(model, answers.num_samples, say=say, **known)


def _check_server(answers: ModelAnswers, computing: Computing) -> None:
    """Raises a ValueError if an option says how a model answers, which a server has settled."""
    said = [
        f"--{each.name.replace('_', '-')}"
        for each in dataclasses.fields(answers)
        if each.name not in ("server", "token") and getattr(answers, each.name) != each.default
    ]
    said += ["--overlap"] if computing.overlap is not None and computing.tile is None else []
    if said:
        raise ValueError(
            "With --server, the export determines how the model answers, so these options cannot be used: "
            f"{', '.join(said)}. Leave them out, or pass --model instead"
        )


def _settings(model: Path | None, answers: ModelAnswers, predictor: "Predictor") -> dict[str, Any]:
    """Returns the settings that predictions depend on, for the journal."""
    from dropzoo.predictions.identity import stamp_of

    said = {name: value for name, value in vars(answers).items() if name != "token"}
    said["num_samples"] = predictor.num_samples
    if answers.value_range is None:  # journals that are older than the option do not have it
        del said["value_range"]
    said |= {"members_drop": True} if predictor.members_drop else {}
    if model is None:
        return {"model": predictor.served, **said}
    return {"model": str(model.resolve()), "stamp": stamp_of(model), **said}


def _tell(report: "Report") -> None:
    """Prints the labels, what was skipped and left out, and the files without an answer."""
    from dropzoo.training.data.files.table import counted

    _print_labels(report.rows)
    if report.skipped:
        done = count_of(report.skipped, "image was", "images were")
        say(f"{done} done already; to start again, pass --overwrite")
    if report.left_out:
        say(f"Left out files without the ending of an image file: {counted(report.left_out)}")
    if report.table is not None and report.rows:
        say(f"Saved {report.table}")
    end(report.failed, len(report.rows))


def _print_labels(rows: list["Row"]) -> None:
    """Prints the rows of images that have one answer: a class, labels or values; as JSON, all rows in full."""
    if console.kept is not None:
        _print_whole(rows)
        return
    labelled = [row for row in rows if "height" not in row]
    if not labelled:
        return
    columns = [name for name in labelled[0] if name not in ("image", "page") and not name.startswith("p_")]
    order = {"class": 0, "labels": 0, "set": 2, "defer": 3}
    columns = sorted(columns, key=lambda name: order.get(name, 1))[:_COLUMNS]
    heads = ("label" if name == "class" else name.replace("_", " ") for name in columns)
    table = Table(Column("image", overflow="fold"), *map(escape, heads))
    for row in labelled[:_SHOWN]:
        page = f"#{row['page']}" if "page" in row else ""
        cells = [f"{x:.3f}" if isinstance(x := row.get(name, "-"), float) else str(x) for name in columns]
        table.add_row(*map(escape, (f"{row['image']}{page}", *cells)))
    console.print(table)
    if len(labelled) > _SHOWN:
        say(
            f"... and {count_of(len(labelled) - _SHOWN, 'more image')}, of which the model is more certain; "
            "--table writes all of them"
        )


def _print_whole(rows: list["Row"]) -> None:
    """Prints all rows and columns of the table, for JSON, with the names of the table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*map(escape, columns))
    for row in rows:
        table.add_row(*("" if (x := row.get(name)) is None else escape(str(x)) for name in columns))
    if columns:
        console.print(table)
