"""The command line: `dropzoo --help` lists its commands."""

import ast
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from dropzoo.tables import results_table

app = typer.Typer(
    help="CNNs and U-Nets for Keras in which every dropout site has a name.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
_command: list[str] = []  # what `main` was given

DropoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dropout",
        help='A rate, a plan\'s name, or, repeatable, "pattern=spec" such as "decoder*=spatial_dropout2d:0.2".',
    ),
]
ModelOptions = Annotated[
    list[str] | None,
    typer.Option("--option", help='Repeatable: an option of the model, "depth=3" or "filters=(32, 64)".'),
]
RateScheduleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rate-schedule",
        help='Repeatable: "pattern=schedule" such as "decoder*=linear:0.0,0.3", the rate over the run in place of '
        "a fixed one; or one for all. constant, linear, cosine, step, curriculum, early, late.",
    ),
]
SamplesOption = Annotated[int, typer.Option("--num-samples", min=1, help="Monte-Carlo samples.")]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that stand before the command."""


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(help="models, layers, plans or data")],
    pattern: Annotated[str, typer.Argument(help="Only names that match, such as '*unet*'.")] = "*",
) -> None:
    """Lists what there is, with what it is.

    Example: dropzoo list models
    """
    import fnmatch

    from dropzoo import layers, models, training
    from dropzoo.layers._checks import unknown

    def first_line(thing: Any) -> str:
        return (thing.__doc__ or "").partition("\n")[0]

    rows: dict[str, list[tuple[str, ...]]] = {
        "models": [(n, first_line(models.get_builder(n))) for n in models.list_models()],
        "layers": [
            (n, "yes" if n in layers.list_layers(sites_only=True) else "", first_line(layers.get_class(n)))
            for n in layers.list_layers()
        ],
        "plans": [
            (n, p.description + (f". Reported: {p.effect}" if p.effect else ""), p.reference)
            for n in models.list_plans()
            for p in [models.get_plan(n)]
        ],
        "data": [
            *((n, "embedded, needs no network") for n in training.list_data()),
            ("any TFDS name", "such as fashion_mnist; --manual-dir for archives you have"),
            ("a folder", "images/ and masks/, or one folder a class"),
        ],
    }
    if kind not in rows:
        raise unknown("kind of list", kind, rows)
    columns = {"plans": ("what", "reference"), "layers": ("at any site", "what")}
    table = Table(Column("name", no_wrap=True), *columns.get(kind, ("what",)))
    for row in rows[kind]:
        if fnmatch.fnmatch(row[0], pattern):
            table.add_row(*row)
    console.print(table)


@app.command()
def sites(
    model: Annotated[str, typer.Argument(help="A model's name, or a .keras file.")],
    dropout: DropoutOption = None,
    option: ModelOptions = None,
) -> None:
    """Shows a model's dropout sites, and what a plan puts there.

    Example: dropzoo sites unet --dropout bayesian_segnet
    """
    from dropzoo import models

    table = Table("site", "kind", "shape", "dropout")
    for site in models.list_sites(_model(model, dropout, option)):
        shape = " x ".join("?" if n is None else str(n) for n in site.shape[1:])
        table.add_row(site.name, site.kind, shape, site.spec and f"[bold]{site.spec}[/bold]")
    console.print(table)


@app.command()
def plot(
    model: Annotated[str, typer.Argument(help="A model's name, or a .keras file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture: .svg, .pdf, .png, ...")],
    dropout: DropoutOption = None,
    option: ModelOptions = None,
    size: Annotated[int, typer.Option("--size", min=1, help="Of the images, where the model takes any.")] = 128,
) -> None:
    """Draws a network with its dropout sites, for a paper or a slide.

    Example: dropzoo plot unet --dropout bayesian_segnet --option filters=32 -o unet.svg
    """
    from dropzoo import drawing, pictures

    pictures.save(drawing.draw_sites(_model(model, dropout, option), (size, size)), out)
    console.print(f"Wrote {out}")


@app.command()
def retrofit(
    model: Annotated[Path, typer.Argument(help="A .keras file of any Functional or Sequential model.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new .keras file.")],
    dropout: Annotated[
        list[str] | None,
        typer.Option(
            "--dropout",
            help='Repeatable: "after:Conv2D=0.1", "before:Flatten=0.5", "inside:backbone after:Conv2D=0.1", '
            '"before_activation:conv4_*=drop_block2d:0.1", "pattern*=none"; or a plan\'s name.',
        ),
    ] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Take all dropout out instead.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
) -> None:
    """Puts dropout into a model that you have, or takes it out, and reports what it does.

    Example: dropzoo retrofit mine.keras --dropout "before:Dense=0.5" -o mine_with_dropout.keras
    """
    import keras

    from dropzoo import models

    if bool(dropout) == strip:
        raise ValueError("Say what to change by --dropout, or --strip to take all dropout out, one of the two")
    if out.suffix != ".keras":
        raise ValueError(f"The new file must be a .keras file. Received: {out}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Give another name, or --overwrite")
    old = keras.models.load_model(model)
    new = models.strip_dropout(old) if strip else models.retrofit(old, parse_dropout(dropout))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp.keras")
    try:
        new.save(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    if not strip:
        console.print(str(models.dropout_report(new)), soft_wrap=True, markup=False)
    console.print(f"Wrote {out}")


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A model's name: dropzoo list models.")],
    data: Annotated[str, typer.Option("--data", help="digits, digit_scenes, a TFDS name, or a folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run's folder; runs/MODEL-DATA by default.")
    ] = None,
    dropout: DropoutOption = None,
    option: ModelOptions = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 10,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 32,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Of Adam.")] = 1e-3,
    schedule: Annotated[
        str, typer.Option("--schedule", help="Of the learning rate: cosine (down to 0) or constant.")
    ] = "cosine",
    rate_schedule: RateScheduleOption = None,
    augment: Annotated[
        str | None, typer.Option("--augment", help='"yes" (mild), or "flip_horizontal,rotation=15,crop=128".')
    ] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", help="Resize images to this square.")] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="1 or 3: turn images grey or RGB.")] = None,
    validation_split: Annotated[float, typer.Option("--validation-split", help="Of the training images.")] = 0.1,
    limit: Annotated[int | None, typer.Option("--limit", help="Train on the first so many images.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    manual_dir: Annotated[
        str | None, typer.Option("--manual-dir", help="Folder with a TFDS set's archives.")
    ] = None,
    data_dir: Annotated[str | None, typer.Option("--data-dir", help="Where TFDS keeps prepared sets.")] = None,
    steps_per_execution: Annotated[
        int, typer.Option("--steps-per-execution", min=1, help="Steps in one call: faster where a step is short.")
    ] = 1,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that share each batch, on this machine.")
    ] = 1,
) -> None:
    """Trains a model in a folder; started again, it goes on where it was stopped.

    Example: dropzoo train unet --data digit_scenes --dropout "bottleneck*=0.5" --option filters=16 --epochs 5
    """
    from dropzoo.runs import RunConfig, train_run
    from dropzoo.training.workers import run_workers

    config = RunConfig(
        model=model,
        data=data,
        dropout=parse_dropout(dropout),
        options=parse_options(option),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        schedule=schedule,
        rate_schedule=parse_rate_schedule(rate_schedule),
        augment=True if augment == "yes" else augment or False,
        image_size=image_size,
        num_channels=channels,
        validation_split=validation_split,
        limit=limit,
        seed=seed,
        manual_dir=manual_dir,
        data_dir=data_dir,
    )
    folder = out or Path("runs") / f"{model}-{Path(data).name}"
    if workers > 1 and "TF_CONFIG" not in os.environ:
        config.load_data()  # prepared once, not by all of them at the same time
        raise typer.Exit(run_workers([sys.executable, "-m", "dropzoo.cli", *_command], workers))
    _, results = train_run(config, folder, say=console.print, steps_per_execution=steps_per_execution)
    console.print(results_table({"test": results}))
    console.print(f"Saved in {folder}. Next: dropzoo evaluate {folder} --mc 30")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    mc: Annotated[int, typer.Option("--mc", min=0, help="Also average over so many Monte-Carlo samples.")] = 0,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Also at the temperature that fits the validation images best.")
    ] = False,
    corruptions: Annotated[
        str | None, typer.Option("--corruptions", help='Also on corrupted images: "all", or "blur,contrast".')
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="A folder for the reliability and risk-coverage plots.")
    ] = None,
) -> None:
    """Evaluates a run's model on the test set: accuracy, IoU, NLL, calibration, the use of its uncertainty.

    Example: dropzoo evaluate runs/unet-digit_scenes --mc 30 --temperature --plots plots
    """
    from dropzoo import calibration_plots, evaluation
    from dropzoo.runs import load_run
    from dropzoo.tables import corruption_tables

    names = [] if corruptions is None else evaluation.parse_corruptions(corruptions)
    model, config, info = load_run(run)
    data = config.load_data()
    dataset = data.test or data.validation or data.train.at_epoch(0)
    predictors = evaluation.predictors(model, mc)
    temperatures = evaluation.fit_temperatures(predictors, data) if temperature else {}
    scores = evaluation.score_all(predictors, dataset, info, temperatures)
    figures = {title: found.figures() for title, found in scores.items()}
    console.print(results_table(figures))
    if plots is not None:
        for path in calibration_plots.save_plots(scores, plots):
            console.print(f"Saved {path}")
    if names:
        worse = evaluation.score_corruptions(predictors, dataset, info, names)
        for table in corruption_tables({title: figures[title] for title in predictors}, worse):
            console.print(table)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    model: Annotated[Path, typer.Option("--model", help="A run's folder, a .keras file or a SavedModel.")],
    out: Annotated[Path, typer.Option("--out", help="Where pictures of masks go.")] = Path("predictions"),
    num_samples: SamplesOption = 30,
) -> None:
    """Predicts images, with the model's uncertainty: labels as a table, masks as pictures.

    Example: dropzoo predict cell.png --model runs/unet-nuclei
    """
    from dropzoo import pictures
    from dropzoo.predictor import as_dict, label, load_predictor

    predictor = load_predictor(model, num_samples)
    table = Table("image", "label", "probability", "predictive entropy", "mutual information")
    for path in images:
        image = predictor.read(path)
        result = as_dict(predictor, image)
        uncertainty = [result.get(name) for name in ("predictive_entropy", "mutual_information")]
        if result["mean"].ndim == 1:
            name, probability = label(result["mean"], predictor.class_names)
            table.add_row(
                str(path), name, f"{probability:.3f}", *("-" if u is None else f"{u:.3f}" for u in uncertainty)
            )
        else:
            out.mkdir(parents=True, exist_ok=True)
            target = out / f"{path.stem}_prediction.png"
            batch = {name: value[None] for name, value in result.items()}
            pictures.save(pictures.masks(image[None], None, batch), target)
            console.print(f"{path} -> {target}")
    if table.row_count:
        console.print(table)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder, or a .keras file.")],
    path: Annotated[Path, typer.Argument(help="The SavedModel's folder: saved_models/NAME/VERSION.")],
    num_samples: SamplesOption = 30,
    image_dtype: Annotated[str, typer.Option("--image-dtype", help="float32 in [0, 1], or uint8.")] = "float32",
    resize: Annotated[
        int | None, typer.Option("--resize", min=1, help="Bring images of any size to this height and width.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
) -> None:
    """Writes a SavedModel with a deterministic and a Monte-Carlo signature.

    Example: dropzoo export runs/unet-digit_scenes saved_models/unet/1
    """
    import keras

    from dropzoo import serving
    from dropzoo.runs import load_run

    known: dict[str, Any] = {}
    if run.suffix == ".keras":
        model = keras.models.load_model(run)
    else:
        model, config, info = load_run(run)
        known = {"class_names": info.class_names, "card": {"data": config.data, "training": asdict(config)}}
    written = serving.export_model(
        model,
        path,
        num_samples,
        image_dtype=image_dtype,
        resize=resize,
        overwrite=overwrite,
        **known,
    )
    console.print(f"Exported to {written}. Next: dropzoo predict IMAGE --model {written}")


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="A model's folder of versions: saved_models/NAME.")],
    host: Annotated[str, typer.Option("--host", help="Only this machine can reach the default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8501,
    token: Annotated[
        str | None, typer.Option("--token", envvar="DROPZOO_TOKEN", help="Requests must bear this token.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Serve so many of the newest versions.")] = 2,
) -> None:
    """Serves an export: TensorFlow Serving's REST API, predict_mc, and a page to try it on.

    Example: dropzoo serve saved_models/unet
    """
    try:
        from dropzoo.serving import server
    except ModuleNotFoundError as error:
        raise ValueError(f"The server needs the extra: pip install 'dropzoo[serve]' ({error})") from None
    server.serve(folder, host=host, port=port, token=token, keep=keep)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="The demo's folder.")] = Path("demo"),
) -> None:
    """Trains a CNN and a U-Net with and without dropout, samples and exports them; writes OUT/report.html.

    Example: dropzoo demo --out demo
    """
    from dropzoo.demo import run_demo

    run_demo(out, say=console.print)


def parse_dropout(values: list[str] | None) -> Any:
    """`--dropout` as `build_model` takes it: None, a rate, a plan's name, or a dict of patterns."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0]:
        return _number(values[0])
    return _by_pattern("--dropout", "pattern=spec", values)


def parse_rate_schedule(values: list[str] | None) -> dict[str, Any] | None:
    """`--rate-schedule` as `RateSchedule` takes it, in text: a dict of patterns, or None."""
    if not values:
        return None
    if len(values) == 1 and "=" not in values[0].partition(":")[0]:
        return {"*": _number(values[0])}
    return _by_pattern("--rate-schedule", "pattern=schedule", values)


def parse_options(values: list[str] | None) -> dict[str, Any]:
    """`--option name=value`, where the value is a Python literal or a bare word."""
    options: dict[str, Any] = {}
    for value in values or ():
        name, equals, literal = value.partition("=")
        if not equals:
            raise ValueError(f'--option must be "name=value". Received: {value!r}')
        try:
            options[name.strip()] = ast.literal_eval(literal.strip())
        except (ValueError, SyntaxError):
            options[name.strip()] = literal.strip()
    return options


def _by_pattern(option: str, form: str, values: list[str]) -> dict[str, Any]:
    plan: dict[str, Any] = {}
    for value in values:
        pattern, equals, spec = value.partition("=")
        if not equals or not pattern or not spec:
            raise ValueError(f'Several {option} must each be "{form}". Received: {value!r}')
        plan[pattern] = None if spec == "none" else _number(spec)
    return plan


def _model(model: str, dropout: list[str] | None, option: list[str] | None) -> Any:
    """By name, with dropout by its builder; or from a .keras file, with dropout by surgery."""
    import keras

    from dropzoo import models

    plan = parse_dropout(dropout)
    if not model.endswith(".keras"):
        return models.build_model(model, dropout=plan, **parse_options(option))
    if option:
        raise ValueError("--option is for a model's name; a file's model is as it is")
    loaded = keras.models.load_model(model)
    return models.retrofit(loaded, plan) if plan else loaded


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def main(args: list[str] | None = None) -> None:
    """Runs the command line: bad input is one line and exit status 2, an interrupt 130."""
    args = sys.argv[1:] if args is None else args
    _command[:] = args
    try:
        status = app(args, prog_name="dropzoo", standalone_mode=False)
    except typer.Exit as stop:
        status = stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        errors.print("Stopped")
        status = 130
    except Exception as error:
        if "--debug" in args:
            raise
        status = _report(error)
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: Exception) -> int:
    if hasattr(error, "format_message"):  # of the command line itself: an unknown option, a missing argument
        errors.print(f"[red]Error:[/red] {error.format_message()} See: dropzoo --help", soft_wrap=True)
        return 2
    kind = "" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: "
    errors.print("[red]Error:[/red]", end=" ")
    errors.print(f"{kind}{error}", soft_wrap=True, markup=False)
    if kind:
        errors.print("dropzoo --debug ... shows where")
    return 2 if not kind else 1


if __name__ == "__main__":
    main()
