"""The commands on models: list them, show or draw their sites, and change their dropout."""

import fnmatch
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from dropzoo.cli.console import console, say
from dropzoo.cli.errors import options_in_errors
from dropzoo.cli.options import ModelOptions
from dropzoo.cli.parsing import parse_dropout, parse_options
from dropzoo.common.checks import unknown
from dropzoo.common.files import whole_file

if TYPE_CHECKING:  # the import takes seconds, so each command imports what it needs
    import keras

DropoutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--dropout",
        help="A rate (only for a model's name), a plan's name, or \"pattern=spec\" (repeatable), such as "
        '"decoder*=0.2". A spec is a rate, or a layer (dropzoo list layers).',
    ),
]


def list_(
    kind: Annotated[str, typer.Argument(help="models, layers, plans or data")],
    pattern: Annotated[str, typer.Argument(help="Pattern of the names to list, such as '*unet*'.")] = "*",
) -> None:
    """Lists models, layers, plans or data sets, with one line about each.

    Example: dropzoo list models
    """
    from dropzoo import layers, models, training

    def first_line(thing: object) -> str:
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
            *((n, "comes with dropzoo, needs no internet access") for n in training.list_data()),
            ("any TFDS name", "such as fashion_mnist; --manual-dir is for archives that you have downloaded"),
            ("a folder", "with images/ and masks/, or with one folder per class"),
        ],
    }
    if kind not in rows:
        raise unknown("kind of list", kind, rows)
    columns = {"plans": ("what", "reference"), "layers": ("at any site", "what")}
    table = Table(Column("name", no_wrap=True), *columns.get(kind, ("what",)))
    for row in rows[kind]:
        if fnmatch.fnmatch(row[0], pattern):
            table.add_row(*map(escape, row))
    console.print(table)


def sites(
    model: Annotated[str, typer.Argument(help="A model's name, a run's folder, or a .keras file.")],
    dropout: DropoutOption = None,
    option: ModelOptions = None,
    edges: Annotated[
        bool,
        typer.Option(
            "--edges",
            help="Also list edges, such as 'enc->join': the output of enc, but only as an input of join.",
        ),
    ] = False,
) -> None:
    """Shows the dropout sites of a model, and the dropout that a plan puts there.

    If layers have dropout inside, an extra column shows it; a plan cannot change this dropout.

    Example: dropzoo sites unet --dropout bayesian_segnet
    """
    from dropzoo import models

    sites = models.list_sites(_model(model, dropout, option), edges=edges)
    inside = any(site.inside for site in sites)
    table = Table("site", "kind", "shape", "dropout", *(["inside"] if inside else []))
    for site in sites:
        shape = " x ".join("?" if n is None else str(n) for n in site.shape[1:])
        spec = site.spec and f"[bold]{escape(site.spec)}[/bold]"
        draws = [site.inside and escape(site.inside)] if inside else []
        table.add_row(escape(site.name), site.kind, shape, spec, *draws)
    console.print(table)


def plot(
    model: Annotated[str, typer.Argument(help="A model's name, a run's folder, or a .keras file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The picture: .svg, .pdf, .png, ...")],
    dropout: DropoutOption = None,
    option: ModelOptions = None,
    size: Annotated[
        int,
        typer.Option(
            "--size", min=1, help="Height and width of the images, if the model takes images of any size."
        ),
    ] = 128,
) -> None:
    """Draws a network with its dropout sites, for a paper or a slide.

    Example: dropzoo plot unet --dropout bayesian_segnet --option filters=32 -o unet.svg
    """
    from dropzoo.pages import drawing, pictures

    pictures.save(drawing.draw_sites(_model(model, dropout, option), (size, size)), out)
    say(f"Wrote {out}")


def retrofit(
    model: Annotated[
        Path, typer.Argument(help="A .keras file of any Functional or Sequential model, or a run's folder.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The new .keras file.")],
    dropout: Annotated[
        list[str] | None,
        typer.Option(
            "--dropout",
            help='Repeatable: "PLACE=SPEC", or a plan\'s name. A place is the name of a site, or "after:", '
            '"before:" or "before_activation:" followed by the class or the name of a layer; "inside:MODEL '
            'after:Conv2D" is for a nested model. A spec is a rate (0.1), a layer (drop_block2d:0.1), or none.',
        ),
    ] = None,
    strip: Annotated[bool, typer.Option("--strip", help="Remove all dropout instead of adding any.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Adds dropout to an existing model and reports how much each site drops; or removes all dropout.

    Example: dropzoo retrofit mine.keras --dropout "before:Dense=0.5" -o mine_with_dropout.keras
    """
    if bool(dropout) == strip:
        raise ValueError("Pass either --dropout to change the dropout, or --strip to remove it")
    if out.suffix != ".keras":
        raise ValueError(f"The new file must be a .keras file. Received: {out}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists. Pass --overwrite to replace it, or choose another name with --out")
    from dropzoo import models

    old = _load(model)
    with options_in_errors():
        new = models.strip_dropout(old) if strip else models.retrofit(old, _places(dropout))
    with whole_file(out) as unfinished:
        new.save(unfinished)
    if not strip:
        say(str(models.dropout_report(new)))
    say(f"Wrote {out}")


def _model(model: str, dropout: list[str] | None, option: list[str] | None) -> "keras.Model":
    """Builds a model by name with its dropout, or loads one from a run or a .keras file and retrofits it."""
    from dropzoo import models

    plan = parse_dropout(dropout)
    is_file = model.endswith(".keras") or (Path(model).is_dir() and model not in models.list_models())
    if not is_file:
        return models.build_model(model, dropout=plan, **parse_options(option))
    if option:
        raise ValueError("--option is for a model that is built by its name; the model in a file is built already")
    loaded = _load(Path(model))
    with options_in_errors():
        return loaded if plan is None else models.retrofit(loaded, _places(dropout))


def _load(path: Path) -> "keras.Model":
    """Loads a .keras file, or that of a run."""
    from dropzoo.models.graph.record import load_model

    if path.is_dir():
        path = path / "model.keras"
        if not path.is_file():
            raise ValueError(
                f"Expected a .keras file, or a run's folder with a model.keras in it. There is no {path}"
            )
    importlib.import_module("dropzoo.training")  # registers the losses and metrics of compiled models
    return load_model(path)


def _places(dropout: list[str] | None) -> Any:
    """Reads `--dropout` as `retrofit` takes it: a plan's name, or a dict of places; a rate alone has no place."""
    plan = parse_dropout(dropout)
    if isinstance(plan, float):
        raise ValueError(
            'For a model in a file, --dropout must be "PLACE=SPEC", such as "before:Dense=0.5", or a plan\'s '
            f"name. Received: {plan:g}"
        )
    return plan
