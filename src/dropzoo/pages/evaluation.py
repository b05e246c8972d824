"""The files of `dropzoo evaluate --plots`: figures as CSV, pictures, and one HTML page that holds them all."""

from pathlib import Path

from matplotlib.figure import Figure

from dropzoo.models.graph.walk import graph_of
from dropzoo.pages import calibration, page, pictures
from dropzoo.pages.drawing import draw_sites
from dropzoo.runs.comparison import Evaluation
from dropzoo.runs.details import detail_tables
from dropzoo.runs.figures import label, value
from dropzoo.runs.tables import write_figures
from dropzoo.runs.uncertainty import Uncertainty
from dropzoo.training import DataInfo

_CAPTIONS = {
    "reliability": "Reliability: accuracy against confidence",
    "risk_coverage": "Risk and coverage: the error among the surest predictions",
    "attribution": "Sites: the filled part is the share of the variance that disappears without the site",
    "guarantee": "The guarantee on errors: images to the right of the line go to a human",
    "corruptions": "Corrupted images: severity 0 is the images as they are",
    "least_certain": "The least certain images, by predictive entropy (H); MI is the mutual information",
    "most_certain": "The most certain images",
}


def save_all(folder: Path, title: str, found: Evaluation) -> list[Path]:
    """Writes figures as CSV, plots as SVG and PNG, pictures of images as PNG, and a page; returns the paths."""
    plots = calibration.draw(found.scores)
    if found.promises is not None and "error" in found.promises.calibration.guarantees:
        plots["guarantee"] = calibration.guarantee(found.promises)
    if found.corrupted:
        plots["corruptions"] = calibration.corruptions(found.clean, found.corrupted)
    if found.model is not None and found.attribution is not None and graph_of(found.model) is not None:
        totals = dict(zip(found.attribution.sites, map(float, found.attribution.total), strict=True))
        plots["attribution"] = draw_sites(found.model, shares=totals)
    images = overlays(found.uncertainty, found.info) if found.uncertainty else {}
    return [
        write_figures(folder / "figures.csv", found.figures, found.corrupted),
        *calibration.save_plots(plots, folder),
        *(found.details.write(folder) if found.details else ()),
        *(pictures.save(figure, folder / f"{name}.png") for name, figure in images.items()),
        _write_page(folder / "report.html", title, found, plots | images),
    ]


def overlays(found: Uncertainty, info: DataInfo) -> dict[str, Figure]:
    """Draws the images with the least and the most certain answers, as `least_certain` and `most_certain`."""
    drawn = {}
    for name, examples in (("least_certain", found.least_certain), ("most_certain", found.most_certain)):
        images, labels = [each.image for each in examples], [each.label for each in examples]
        answers = {key: [each.answer[key] for each in examples] for key in examples[0].answer}
        if info.task == "segmentation":
            drawn[name] = pictures.masks(images, labels, answers)
        else:
            drawn[name] = pictures.class_probabilities(images, labels, answers, info.class_names)
    return drawn


def _write_page(path: Path, title: str, found: Evaluation, drawn: dict[str, Figure]) -> Path:
    names = [name for name in next(iter(found.figures.values())) if name != "iou"]
    return page.write(
        path,
        "evaluation.html",
        title=title,
        heads=["", *found.figures],
        rows=[[label(name), *(_cell(value(each, name)) for each in found.figures.values())] for name in names],
        tables={
            caption: [[name, _cell(auroc)] for name, auroc in aurocs.items()]
            for caption, aurocs in found.aurocs.items()
        },
        details=detail_tables(found.details) if found.details else [],
        pictures={_CAPTIONS[name]: pictures.as_uri(figure) for name, figure in drawn.items()},
    )


def _cell(number: float | None) -> str:
    return "-" if number is None else f"{number:,}" if isinstance(number, int) else f"{number:.4f}"
