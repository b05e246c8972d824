"""The command `dropzoo measure`."""

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from dropzoo.cli.console import say
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
from dropzoo.common.shell import quote


@with_groups
def measure(
    model: Annotated[Path, typer.Option("--model", help="A run's folder, a .keras file or a SavedModel.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help='Image files, folders, or patterns such as "scans/**/*.tif".',
            parser=parse_path,
            metavar="paths",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", help="The table (.csv or .json), with a row for each image and class.")
    ] = Path("measurements.csv"),
    *,
    save: Annotated[
        str,
        typer.Option(
            "--save",
            help="More files to write: objects (a table), labels (TIFF), geojson, page (HTML); or none.",
        ),
    ] = "objects,page",
    split: Annotated[bool, typer.Option("--split", help="Separate touching objects with a watershed.")] = False,
    min_area: Annotated[int, typer.Option("--min-area", min=1, help="Leave out objects with fewer pixels.")] = 1,
    pixel_size: Annotated[
        float, typer.Option("--pixel-size", help="Side length of a pixel, in your unit, for areas and perimeters.")
    ] = 1.0,
    intervals: Annotated[
        str | None,
        typer.Option(
            "--intervals",
            help="calibrated (by --calibrate or dropzoo calibrate), or samples (the spread of the samples). By "
            "default, calibrated if such intervals exist, and samples otherwise.",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            help="First calibrate the intervals (of a run or a .keras file), on images with known masks: a folder "
            'or a data set that is new to the model, or "validation" for the validation images of a run. The '
            "result is saved with the model. For options on how the folder is read, use dropzoo calibrate.",
        ),
    ] = None,
    num_samples: SamplesOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the samples.")] = 0,
    input_range: InputRangeOption = None,
    value_range: ValueRangeOption = None,
    from_logits: FromLogitsOption = None,
    no_calibration: NoCalibrationOption = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing tables and files.")] = False,
) -> None:
    """Measures the objects in images: counts, areas and perimeters with 90 % intervals, and mean intensities.

    Each object gets the probability that it exists: the share of Monte-Carlo samples that contain it.

    Example: dropzoo measure scans --model runs/unet-nuclei --split --save objects,labels,geojson,page

    Example: dropzoo measure --model runs/unet-nuclei --calibrate validation
    """
    from dropzoo.common.checks import check_choice, check_positive
    from dropzoo.predictions.measure import SAVED, measure_into
    from dropzoo.predictions.measuring import Measure
    from dropzoo.predictions.saved_intervals import calibrate_intervals, intervals_file, load_intervals
    from dropzoo.runs.calibrations import export_folder
    from dropzoo.runs.predictors import load_predictor

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    saved = [] if save == "none" else [each.strip() for each in save.split(",")]
    for name in saved:
        if name not in SAVED:
            raise unknown("output for --save", name, SAVED)
    if intervals is not None:
        check_choice(intervals, "--intervals", ("calibrated", "samples"))
    if not paths and calibrate is None:
        raise ValueError("Pass images to measure, or --calibrate DATA to calibrate the intervals")
    if paths and out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Pass --overwrite to replace it, or choose another name with --out")
    how = Measure(split, min_area, check_positive(pixel_size, "--pixel-size"))
    options: dict[str, Any] = {"input_range": parse_range(input_range), "from_logits": from_logits, "seed": seed}
    options |= {"calibrated": not no_calibration, "votes": True, "sampling": "fixed", "value_range": value_range}
    predictor = None
    if calibrate is not None:
        with options_in_errors():
            predictor = load_predictor(model, num_samples, say=say, **options)
        with options_in_errors({"--data": "--calibrate"}):
            say(f"Saved {calibrate_intervals(predictor, model, calibrate, how, say)}")
        if not paths:
            return
    exported = export_folder(model) is not None
    if intervals == "calibrated" and not intervals_file(model).is_file():
        held = "RUN (the run or the .keras file of this export)" if exported else quote(str(model))
        raise ValueError(
            f"The intervals of {model} were not calibrated. Calibrate them on images whose masks are known: "
            f"dropzoo measure --calibrate DATA --model {held}; or pass --intervals samples"
        )
    with options_in_errors():
        predictor = predictor or load_predictor(model, num_samples, say=say, **options)
        known = {} if intervals == "samples" else load_intervals(predictor, model, how)
        report = measure_into(predictor, paths or [], out, how, known, saved, shown, overwrite)
    if not known and report.rows:
        said, way = (
            "The intervals are those of the samples, and may be too narrow",
            "To calibrate them, pass --calibrate DATA"
            + ("; --model must then be the run or the .keras file" if exported else ""),
        )
        if predictor.num_samples < 2:
            said = "Each image was predicted in a single pass, so the intervals have no width"
        if intervals_file(model).is_file():
            way = "For the calibrated intervals, leave out --intervals"
        say(f"{said}. {way}")
    for path in report.written:
        say(f"Saved {path}")
    end(report.failed, len({(row["image"], row.get("page")) for row in report.rows}))
