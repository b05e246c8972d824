"""Model cards, which describe an export to people (Markdown) and to programs (JSON)."""

import datetime
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from dropzoo import models
from dropzoo.models.graph.random import random_layers
from dropzoo.models.graph.walk import graph_of
from dropzoo.serving.export.inputs import Input
from dropzoo.serving.montecarlo.outputs import Output


def model_card(
    members: Sequence[keras.Model], facts: Mapping[str, object], told: Mapping[str, object]
) -> dict[str, object]:
    """Returns the card of an export.

    Args:
        members: The model that is exported, or the members of an ensemble.
        facts: Sections by name, which `export_model` fills in.
        told: Sections by name, which the user passes.

    Raises:
        ValueError: If `told` has a section that the export fills in itself, or a value that JSON cannot express.
    """
    model = members[0]
    card = {
        "name": model.name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "parameters": sum(member.count_params() for member in members),
        **({"members": len(members)} if len(members) > 1 else {}),
        "plan": _plan(model),
        **facts,
        "versions": {
            "dropzoo": importlib.metadata.version("dropzoo"),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        },
    }
    if both := sorted(card.keys() & told.keys()):
        raise ValueError(
            f"`card` must not contain sections that the export fills in itself. Received: {', '.join(both)}"
        )
    open_sections = [name for name in ("data", "metrics", "calibration", "commit") if name not in card]
    card |= {name: told.get(name) for name in open_sections} | dict(told)
    try:
        json.dumps(card, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`card` must hold only values that JSON can express. Received: {error}") from None
    return card


def _plan(model: keras.Model) -> dict[str, str]:
    """The dropout of a model, by the names of its sites if the model has a graph, or else by layer names."""
    if graph_of(model) is not None:
        return {site.name: site.spec for site in models.list_sites(model) if site.spec}
    found = {each.path: each for each in random_layers(model)}
    return {
        name: type(each.layer).__name__ if each.rate is None else f"{type(each.layer).__name__}:{each.rate:g}"
        for name, each in found.items()
    }


def facts_of(
    outputs: Sequence[Output],
    inputs: Sequence[Input],
    names: Sequence[list[str] | None],
    monte_carlo: Mapping[str, object],
) -> dict[str, object]:
    """Returns the sections of the card that the export fills in.

    Args:
        outputs: The outputs of the model.
        inputs: The inputs of the signatures.
        names: The names of the classes, labels or values of each output.
        monte_carlo: The section about the samples; empty if there are no samples.
    """
    meanings = [
        {"task": output.kind, "outputs" if output.kind == "regression" else "classes": each or output.shape[-1]}
        for output, each in zip(outputs, names, strict=True)
    ]
    facts: dict[str, object] = {}
    if len(inputs) == 1:
        facts["input"] = inputs[0].facts()
    else:
        facts["inputs"] = {each.name: each.facts() for each in inputs}
    if len(outputs) == 1:
        facts |= meanings[0]
    else:
        facts["outputs"] = {output.name: each for output, each in zip(outputs, meanings, strict=True)}
    return {**facts, "monte_carlo": monte_carlo}


def info_of(
    outputs: Sequence[Output], inputs: Sequence[Input], names: Sequence[list[str] | None], num_samples: int
) -> dict[str, object]:
    """Returns the content of `info.json`, for programs that use the export.

    Args:
        outputs: The outputs of the model.
        inputs: The inputs of the signatures.
        names: The names of the classes, labels or values of each output.
        num_samples: Int, the number of Monte-Carlo samples.
    """
    described = [
        {"name": output.name, "task": output.kind, "class_names": each}
        for output, each in zip(outputs, names, strict=True)
    ]
    return {
        "task": outputs[0].kind,
        "class_names": names[0],
        "num_samples": num_samples,
        "image_size": next((each.fixed_size for each in inputs if each.fixed_size), None),
        "inputs": [each.info() for each in inputs],
        "outputs": described,
    }


def write_card(folder: Path, card: Mapping[str, object]) -> None:
    """Writes `model_card.json` and `model_card.md` to a folder."""
    (folder / "model_card.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    lines = [f"# {card['name']}", ""]
    for title, value in card.items():
        if title != "name":
            lines += [f"## {str(title).replace('_', ' ').capitalize()}", "", *_section(value), ""]
    (folder / "model_card.md").write_text("\n".join(lines), encoding="utf-8")


def _section(value: object) -> list[str]:
    if value is None or value == {} or value == []:
        return ["Not given." if value is None else "None."]
    if isinstance(value, Mapping):
        return ["| | |", "|---|---|", *(f"| {_cell(name)} | {_cell(each)} |" for name, each in value.items())]
    return [_cell(value)]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_cell(each)}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return "any" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
