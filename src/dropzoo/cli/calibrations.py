"""The command `dropzoo calibrate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from dropzoo.cli.console import console, say
from dropzoo.cli.data_options import FolderOptions, changed, flag_of
from dropzoo.cli.errors import in_options, options_in_errors
from dropzoo.cli.options import FromLogitsOption, InputRangeOption, with_groups
from dropzoo.cli.parsing import parse_range
from dropzoo.common.checks import unknown
from dropzoo.common.shell import quote

if TYPE_CHECKING:
    from dropzoo.runs.calibrate import Calibrated, CalibrationConfig

_TEMPERATURES: dict[str, Any] = {"one": True, "per_class": "per_class", "none": False}


@with_groups
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run's folder, or any .keras file (with --data).")],
    guarantee: Annotated[
        list[str] | None,
        typer.Option(
            "--guarantee",
            help="Repeatable: a guarantee and its level, the largest error rate that it allows, such as "
            '"miss=0.1". For class labels: set (counts the sets of classes without the true one) and error '
            "(counts the wrong answers, except those left to a human). For masks: miss (counts the pixels of the "
            "class outside the outer mask), false (counts the pixels of the inner mask that are not of the class) "
            "and error. For multi-label models and regression, use serving.calibrate in Python.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="A folder or a data set of images that are new to the model, to use instead of the run's "
            "validation images. The test images in it are left out.",
        ),
    ] = None,
    manual_dir: Annotated[
        str | None, typer.Option("--manual-dir", help="Folder with the downloaded archives of --data (TFDS).")
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(
            "--sites",
            help="search: find the sites that should drop in inference, and at which multiple of their training "
            "rates; if one pass without dropout is as good, no sites drop. as_is: keep sites and rates. The "
            "default is search if a single model has dropout, else as_is; with --mc 0, it is as_is.",
        ),
    ] = None,
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature", help="one (for all classes), per_class (needs many images of each class), or none."
        ),
    ] = "one",
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--mc",
            "--num-samples",
            min=0,
            help="Number of Monte-Carlo samples; 0 for one pass. The default is 30 if the model has dropout. For "
            "an ensemble, the number of samples of all members together; by default, each member answers once, "
            "without dropout.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes",
            help='The classes that the guarantees "miss" and "false" cover, such as "cell,edge". All by default.',
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option("--confidence", help='The probability with which the guarantee "error" holds, in (0, 1).'),
    ] = 0.9,
    input_range: InputRangeOption = None,
    from_logits: FromLogitsOption = None,
    *,
    reading: FolderOptions,
) -> None:
    """Calibrates a model on images that it has not seen, and writes RUN/calibration.json.

    For NAME.keras, it writes NAME.calibration.json beside the file (calibration.json beside a model.keras), and
    also stores the calibration inside the file.

    From then on, evaluate, predict, measure and export use the calibration, unless you pass --no-calibration. By
    default, the images are the validation images of the run. If you used these to choose the model or its number
    of epochs (as train --best does), pass other images with --data. Test images are never used, so that the result
    can be checked on them.

    Example: dropzoo calibrate runs/unet-digit_scenes --guarantee miss=0.1 --guarantee false=0.1
    """
    from dropzoo.runs.calibrate import CalibrationConfig, calibrate_run
    from dropzoo.runs.calibrations import calibration_file
    from dropzoo.runs.tables import calibration_table
    from dropzoo.serving.calibration.words import condition_in_words, promises_in_words

    if temperature not in _TEMPERATURES:
        raise unknown("temperature", temperature, _TEMPERATURES)
    if (asked := changed(reading)) and data is None:
        raise ValueError(f"{flag_of(next(iter(asked)))} says how the folder of --data is read. Pass --data too")
    wanted = CalibrationConfig(
        guarantee=_levels(guarantee),
        data=data,
        manual_dir=manual_dir,
        reading=asked,
        temperature=_TEMPERATURES[temperature],
        sites=sites,  # type: ignore[arg-type]  # `serving.calibrate` checks it
        num_samples=num_samples,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        confidence=confidence,
        input_range=parse_range(input_range),
        from_logits=from_logits,
    )
    with options_in_errors():
        calibrated = calibrate_run(run, wanted, say, verbose=int(console.is_terminal))
    found = calibrated.calibration
    if found.figures:
        console.print(calibration_table(found))
    if found.guarantees:
        table = Table(*(Column(head) for head in ("guarantee", "level", "images", "costs", "promise")))
        words = promises_in_words(found)
        for name, each in found.guarantees.items():
            figures = each.figures.items()
            costs = ", ".join(f"{_cost(key, calibrated.info.class_names)} {value:.3g}" for key, value in figures)
            n = f"{min(each.n)} to {max(each.n)}" if min(each.n) < max(each.n) else str(max(each.n))
            table.add_row(name, f"{each.level:g}", n, escape(costs), escape(words[name]))
        console.print(table)
        say(condition_in_words(found))
    if calibrated.info.task == "segmentation":
        _calibrate_measurements(run, calibrated, wanted)
    given = ""
    if data is not None and not run.is_dir():
        given = f" --data {quote(data)}" + (
            " and the options of the folder" if changed(reading) or manual_dir else ""
        )
    say(f"Saved {calibration_file(run)}. Next: dropzoo evaluate {quote(str(run))}{given}")


def _cost(key: str, class_names: Sequence[str]) -> str:
    """Returns the name of a cost for people; a class gets its name in place of its number."""
    number = key.removeprefix("area_of_class_")
    if number == key or int(number) >= len(class_names):
        return key.replace("_", " ")
    return f"area of class {class_names[int(number)]}"


def _calibrate_measurements(run: Path, calibrated: "Calibrated", wanted: "CalibrationConfig") -> None:
    """Calibrates the intervals of `dropzoo measure` too, for the same objects; too few images are not an error."""
    from dropzoo.predictions.measuring import Measure
    from dropzoo.predictions.saved_intervals import fit_intervals, intervals_file, objects_of_intervals
    from dropzoo.runs.calibrate import held_out
    from dropzoo.runs.predictors import load_predictor

    how = objects_of_intervals(run) or Measure()
    said: dict[str, Any] = {"input_range": wanted.input_range, "from_logits": wanted.from_logits}
    try:
        predictor = load_predictor(run, None, votes=True, sampling="fixed", say=lambda _: None, **said)
        images = held_out(run, wanted, lambda _: None, own_size=True)[1]
        path = fit_intervals(predictor, run, images, calibrated.calibration.data, how)
    except ValueError as error:
        # Intervals that were fitted to the samples of an earlier calibration do not hold for those of this one.
        gone = ""
        if intervals_file(run).is_file():
            gone = ". The earlier intervals were deleted, because they do not fit the new calibration"
        intervals_file(run).unlink(missing_ok=True)
        say(f"The intervals of dropzoo measure were not calibrated: {in_options(str(error)).rstrip('.')}{gone}")
        return
    say(f"Saved {path}, with the intervals for dropzoo measure")


def _levels(values: list[str] | None) -> dict[str, float]:
    """Reads `--guarantee` as `calibrate` takes it."""
    levels: dict[str, float] = {}
    for value in values or ():
        name, _, level = value.partition("=")
        try:
            number = float(level)
        except ValueError:
            raise ValueError(
                f'`--guarantee` must be "name=level", such as "miss=0.1". Received: {value!r}'
            ) from None
        if levels.setdefault(name.strip(), number) != number:
            raise ValueError(
                f"`--guarantee {name}` can be given only once. Received: {levels[name]:g} and {number:g}"
            )
    return levels
