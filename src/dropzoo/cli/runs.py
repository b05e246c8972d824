"""The commands on finished runs: evaluate and export."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from dropzoo.cli.console import console, say
from dropzoo.cli.data_options import FolderOptions, changed, flag_of
from dropzoo.cli.errors import options_in_errors
from dropzoo.cli.options import FromLogitsOption, InputRangeOption, NoCalibrationOption, with_groups
from dropzoo.cli.parsing import parse_range
from dropzoo.common.shell import quote


@with_groups
def evaluate(
    run: Annotated[
        Path,
        typer.Argument(help="A run's folder; or (with --data) any .keras file, or a folder with a model.keras."),
    ],
    data: Annotated[
        str | None, typer.Option("--data", help="Data to use instead of the run's: digits, a TFDS name, a folder.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Images to evaluate on: test, validation, training or all. By default, the first of these that "
            "the data have.",
        ),
    ] = None,
    per: Annotated[
        str | None,
        typer.Option(
            "--per",
            help='Also show scores by class, image or object ("class,image", or all), and intervals of the total '
            "scores. --plots writes them as CSV.",
        ),
    ] = None,
    manual_dir: Annotated[
        str | None, typer.Option("--manual-dir", help="Folder with the downloaded archives of --data (TFDS).")
    ] = None,
    num_samples: Annotated[
        int,
        typer.Option(
            "--mc",
            "--num-samples",
            min=0,
            help="Also evaluate the mean over this many Monte-Carlo samples. For an ensemble, two such means: "
            "over samples of the first member, and over as many samples of all members together.",
        ),
    ] = 0,
    temperature: Annotated[
        bool,
        typer.Option(
            "--temperature", help="Also evaluate with a temperature that is fitted on the validation images."
        ),
    ] = False,
    corruptions: Annotated[
        str | None,
        typer.Option("--corruptions", help='Also evaluate on corrupted images: "all", or names: "blur,contrast".'),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots",
            help="Folder for scores (CSV), plots and an HTML page; with --mc or an ensemble, it also gets the "
            "most and least certain images.",
        ),
    ] = None,
    ood: Annotated[
        str | None,
        typer.Option(
            "--ood",
            help="Another data set, to check that the model is less certain about its images than about yours "
            "(out-of-distribution detection).",
        ),
    ] = None,
    ood_manual_dir: Annotated[
        str | None, typer.Option("--ood-manual-dir", help="Folder with the downloaded archives of --ood (TFDS).")
    ] = None,
    input_range: InputRangeOption = None,
    from_logits: FromLogitsOption = None,
    no_calibration: NoCalibrationOption = False,
    *,
    reading: FolderOptions,
) -> None:
    """Evaluates a model on test images: accuracy, IoU, NLL, calibration, and the quality of its uncertainty.

    Images are scaled to the pixel range of the images that the model was trained on. If that is not known, the
    first layers of the model (such as Rescaling) decide, or else the range is [0, 1]. To set the range yourself,
    pass --input-range.

    If a folder has no split of its own, the test set is the one that training leaves out: the last fifth of each
    class, or of all images with masks (--test-split sets another fraction). To use all images, pass --split all.
    If the model has a calibration, the calibrated answers are evaluated too, and the guarantees are checked.

    Example: dropzoo evaluate runs/unet-digit_scenes --mc 30 --temperature --plots plots --ood digits

    Example: dropzoo evaluate mine.keras --data digits --mc 30 --corruptions all --plots plots
    """
    from dropzoo.pages.evaluation import save_all
    from dropzoo.runs.calibrations import find_calibration
    from dropzoo.runs.comparison import Wanted, compare
    from dropzoo.runs.data import check_split, how_many_are_judged
    from dropzoo.runs.details import parse_per
    from dropzoo.runs.evaluation import parse_corruptions
    from dropzoo.runs.inputs import check_bits, settle_range
    from dropzoo.runs.loading import load_model_for, load_run_for
    from dropzoo.runs.members import first_run, is_ensemble, load_members
    from dropzoo.runs.uncertainty import load_foreign

    if ood and not num_samples and not is_ensemble(run):
        raise ValueError("`--ood` compares the uncertainties of Monte-Carlo samples. Pass --mc 30 too")
    if manual_dir and not data:
        raise ValueError("`--manual-dir` is the folder with the archives of `--data`. Pass --data too")
    names = parse_corruptions(corruptions)
    check_split(split)
    asked = changed(reading)
    with options_in_errors():
        if data is None:
            model, config, loaded = load_run_for(first_run(run), split, asked)
        else:
            model, config, loaded = load_model_for(first_run(run), data, manual_dir, split=split, reading=asked)
            typer.echo(how_many_are_judged(loaded, split), err=True, nl=False)
    taken = settle_range(model, parse_range(input_range), say)
    check_bits(taken, loaded.info)
    of_own_data: dict[str, str | None] = {flag_of(each.name): None for each in dataclasses.fields(FolderOptions)}
    with options_in_errors({**of_own_data, "--manual-dir": "--ood-manual-dir"}):
        foreign = load_foreign(ood, loaded, config, taken, ood_manual_dir) if ood else None
    wanted = Wanted(
        num_samples=num_samples,
        temperature=temperature,
        corruptions=names,
        foreign=foreign,
        examples=plots is not None,
        from_logits=from_logits,
        split=split,
        per=parse_per(per),
        members=load_members(run) if is_ensemble(run) else [],
        calibration=find_calibration(run, not no_calibration),
    )
    show_progress = partial(track, description="Corrupted images", console=console, transient=True)
    with options_in_errors():
        found = compare(model, loaded, wanted, console.print, show_progress)
    if plots is not None:
        for path in save_all(plots, str(run), found):
            say(f"Saved {path}")


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a .keras file.")],
    path: Annotated[
        Path,
        typer.Argument(
            help="The SavedModel's folder: saved_models/NAME/VERSION; or saved_models/NAME, for the next version. "
            "For other formats, the path of the file: NAME.onnx, NAME.tflite or NAME.xml."
        ),
    ],
    num_samples: Annotated[
        int | None,
        typer.Option(
            "--mc",
            "--num-samples",
            min=0,
            help="Number of Monte-Carlo samples; 0 for a model without dropout. 30 by default. For an ensemble, "
            "the number of samples of all members together; by default, each member answers once, without "
            "dropout.",
            show_default=False,
        ),
    ] = None,
    image_dtype: Annotated[
        str,
        typer.Option(
            "--image-dtype",
            help="The dtype of images in requests: float32 (in the model's own range), uint8 or uint16.",
        ),
    ] = "float32",
    input_range: InputRangeOption = None,
    resize: Annotated[
        int | None,
        typer.Option(
            "--resize", min=1, help="Accept images of any size, and resize them to this height and width."
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", help="multi_class, binary, multi_label or regression. By default, it is read from the model."
        ),
    ] = None,
    from_logits: FromLogitsOption = None,
    no_calibration: NoCalibrationOption = False,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="saved_model, or a file for another runtime: onnx (ONNX Runtime), litert, openvino (two files).",
        ),
    ] = "saved_model",
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="float32; or float16 for a file of about half the size, with any --format except saved_model.",
        ),
    ] = "float32",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing export.")] = False,
) -> None:
    """Writes a SavedModel, or a file for another runtime, with deterministic and Monte-Carlo answers.

    If the model has a calibration, the Monte-Carlo answers include its guarantees: sets of classes, outer and
    inner masks, and which images to leave to a human.

    Example: dropzoo export runs/unet-digit_scenes saved_models/unet/1
    """
    from dropzoo import serving
    from dropzoo.models.graph.record import load_model, recorded
    from dropzoo.predictions.saved_intervals import export_counts
    from dropzoo.runs.calibrations import find_calibration
    from dropzoo.runs.loading import load_run
    from dropzoo.runs.members import ensemble_of, first_run, load_members

    known: dict[str, Any] = {}
    value_range = None
    exported: Any
    found = find_calibration(run, not no_calibration)
    if run.suffix == ".keras":
        exported = load_model(run)
        record = recorded(exported)
        value_range = None if record is None else record.stored
    else:
        _, config, info = load_run(first_run(run))
        members = load_members(run)
        value_range, exported = config.value_range, members[0]
        if len(members) > 1:
            said: dict[str, Any] = {"task": task, "from_logits": from_logits, "calibration": found}
            with options_in_errors():
                exported = ensemble_of(members, num_samples or None, sampling="fixed", **said)
            task = from_logits = None
        known = {"class_names": info.class_names, "card": {"data": config.data, "training": config.to_json()}}
    known |= {"image_dtype": image_dtype, "input_range": parse_range(input_range), "resize": resize}
    known |= {"task": task, "from_logits": from_logits, "overwrite": overwrite}
    known |= {"format": format, "precision": precision}
    members_drop = isinstance(exported, serving.Ensemble) and bool(exported.samplers)
    drawn = 30 if num_samples is None else num_samples
    drawn = exported.num_samples if members_drop and drawn else drawn
    with options_in_errors():
        written = serving.export_model(exported, path, drawn, calibration=found, **known)
    if value_range is not None:
        low, high = value_range
        reads = format == "saved_model"  # other files of models read no images
        first = "dropzoo scales image files by the --value-range of the training. " if reads else ""
        scaled = f"(value - ({low:g})) / {high - low:g}, clipped to [0, 1]"
        say(f"{first}Arrays must be scaled before they are sent: {scaled}")
    if found is not None:
        say(f"The export always uses the calibration of {found.date[:10]}")
    drawn = drawn if found is None else found.facts.num_samples
    if format == "saved_model" and export_counts(run, written, drawn, found is not None, members_drop):
        say("The web page of `dropzoo serve` will show counts of objects, with their intervals")
    then = f" Next: dropzoo predict IMAGE --model {quote(str(written))}" if format == "saved_model" else ""
    say(f"Exported to {written}.{then}")
