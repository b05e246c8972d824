"""Ensembles on disk: a folder whose members are runs that differ in their seeds, or snapshots of one run.

ensemble.json  the number of members and the config that they share
member1/ ...   the members, each a run of its own
results.json   the figures of the ensemble; written when all members are finished
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from dropzoo import serving
from dropzoo.runs.config import RunConfig, as_json
from dropzoo.runs.data import differences, judged_images, load_run_data, under_one_name
from dropzoo.runs.evaluation import evaluate_with
from dropzoo.runs.figures import ByMethod, Figures
from dropzoo.runs.files import read_json, write_json
from dropzoo.runs.loading import load_run, load_run_model
from dropzoo.runs.run import snapshot_file, train_run

_RECORD = "ensemble.json"


def train_members(
    config: RunConfig, out: Path, count: int, say: Callable[[str], None] = print, **options: Any
) -> ByMethod:
    """Trains the members of an ensemble one after another, or continues where the training was stopped.

    The members see the same training and validation images in the same order. They differ in their initial weights
    and their dropout masks. A larger count adds members to an ensemble that is there already.

    Args:
        config: The config of the first member; the others have the next seeds.
        out: Path of the ensemble's folder.
        count: Int above 1, the number of members.
        say: Function that prints a line.
        **options: Further arguments of `train_run`.

    Returns:
        The figures of each member and of the ensemble, by title.

    Raises:
        ValueError: If `out` holds anything but this ensemble, or as `train_run` does.

    Reference:
        Fort, Hu and Lakshminarayanan, "Deep Ensembles: A Loss Landscape Perspective", 2019, arXiv:1912.02757, on
        what makes members differ.
    """
    _check_folder(out, config, count)
    figures: ByMethod = {}
    for number in range(count):
        say(f"Member {number + 1} of {count}")
        member = dataclasses.replace(config, seed=(config.seed + number) % 2**32, data_seed=config.seed)
        _, figures[f"member {number + 1}"] = train_run(member, _member(out, number), say=say, **options)
        if number == 0:  # the first member has shown that the config is good
            write_json(out / _RECORD, {"members": count, "config": as_json(config)})
    title, found = _ensemble_figures(out)
    figures[title] = found
    write_json(out / "results.json", found)
    return figures


def snapshot_figures(out: Path, last: Figures) -> ByMethod:
    """Returns the figures of the last snapshot of a run, and those of the ensemble of all snapshots, by title.

    Args:
        out: Path of the run's folder.
        last: The figures of the run's model.
    """
    title, found = _ensemble_figures(out)
    return {"last snapshot": last, title: found}


def _ensemble_figures(out: Path) -> tuple[str, Figures]:
    """The title and the figures of an ensemble."""
    run, members = first_run(out), load_members(out)
    data = load_run_data(load_run(run)[1], run)
    return f"ensemble of {len(members)}", evaluate_with(serving.Ensemble(members), judged_images(data), data.info)


def first_run(path: Path) -> Path:
    """Returns the folder of the run that says how a model was trained: `path`, or an ensemble's first member."""
    return _member(path, 0) if (path / _RECORD).is_file() else path


def is_ensemble(path: Path) -> bool:
    """Returns whether a folder holds several members: runs, or snapshots of one run."""
    if (path / _RECORD).is_file():
        return True
    return (path / "run.json").is_file() and bool(read_json(path / "run.json")["config"].get("snapshots"))


def load_members(path: Path) -> list[keras.Model]:
    """Returns the members of an ensemble; for an ordinary run, a list of its model.

    Args:
        path: Path of the folder of an ensemble or of a run.

    Raises:
        ValueError: If a member is not finished, or `path` is not such a folder.
    """
    if (path / _RECORD).is_file():
        count = read_json(path / _RECORD)["members"]
        folders = [_member(path, number) for number in range(count)]
        if unfinished := [each.name for each in folders if not (each / "model.keras").is_file()]:
            raise ValueError(
                f"The ensemble {path} has members that are not trained yet: {', '.join(unfinished)}. Repeat the "
                "command that started the training"
            )
        return [load_run(each)[0] for each in folders]
    model, config, _ = load_run(path)
    if not config.snapshots:
        return [model]
    return [load_run_model(snapshot_file(path, number)) for number in range(config.snapshots)]


def ensemble_of(
    members: Sequence[keras.Model],
    num_samples: int | None = None,
    *,
    sampling: str = "balanced",
    seed: int = 0,
    task: str | None = None,
    from_logits: bool | None = None,
    calibration: serving.Calibration | None = None,
) -> serving.Ensemble:
    """Returns the ensemble of some members, with their dropout on if a number of samples is wanted.

    Args:
        members: The members.
        num_samples: Int, the number of samples of all members together. None for that of the calibration; without
            a calibration of samples, each member then answers once, without dropout.
        sampling: As for `MonteCarlo`, for samples without a calibration.
        seed: Int in [0, 2**32), the seed of the samples.
        task: As for `Ensemble`.
        from_logits: As for `Ensemble`.
        calibration: The calibration of the ensemble, or None.

    Raises:
        ValueError: If the calibration was made for another number of samples, a member has no dropout, or
            `num_samples` is not a multiple of the number of members.
    """
    facts = None if calibration is None else calibration.facts
    made_for = None if facts is None or facts.sampling is None else facts.num_samples
    if facts is not None and num_samples not in (None, made_for):
        what = "the members without dropout" if made_for is None else f"{made_for} samples"
        raise ValueError(
            f"The calibration was made for {what}. Leave `num_samples` out, pass --no-calibration, or calibrate "
            f"again: dropzoo calibrate RUN --mc {num_samples}. Received: num_samples={num_samples}"
        )
    said: dict[str, Any] = {} if num_samples is None and made_for is None else {"seed": seed}
    if num_samples is not None and made_for is None:
        said |= {"num_samples": num_samples, "sampling": sampling}
    return serving.Ensemble(list(members), task, from_logits, calibration, **said)


def _member(out: Path, number: int) -> Path:
    """The folder of a member; the first has the number 0."""
    return out / f"member{number + 1}"


def _check_folder(out: Path, config: RunConfig, count: int) -> None:
    """Raises a ValueError if `out` holds anything but this ensemble, or part of it."""
    if not (out / _RECORD).is_file():
        known = {_member(out, 0).name}
        if out.is_file() or (out.is_dir() and any(each.name not in known for each in out.iterdir())):
            raise ValueError(f"{out} holds something that is not an ensemble; choose another folder with --out")
        return
    saved, wanted = read_json(out / _RECORD), as_json(config)
    folder = read_json(_member(out, 0) / "run.json").get("folder")
    held = under_one_name(as_json(RunConfig.from_json(saved["config"])), wanted, folder)
    changed = differences(held, wanted)
    if changed or saved["members"] > count:
        if not changed:
            changed = f"members: {saved['members']} -> {count}"
        raise ValueError(
            f"{out} holds another ensemble; choose another folder with --out, or delete this one. Differences: "
            f"{changed}"
        )


def parse_members(text: str | None) -> tuple[int, int]:
    """Reads `--members`: `"5"` for five runs, or `"snapshots:5"` for five snapshots of one run.

    Args:
        text: Str, or None for a single run.

    Returns:
        The number of runs and the number of snapshots; 0 for what is not asked for.

    Raises:
        ValueError: If the text has another form, or a number is below 2.
    """
    if text is None:
        return 0, 0
    kind, _, number = text.rpartition(":")
    if kind not in ("", "snapshots") or not number.isdigit() or int(number) < 2:
        raise ValueError(
            "--members must be a number of runs, at least 2, such as 5, or snapshots of one run, such as "
            f'"snapshots:5". Received: {text!r}'
        )
    return (0, int(number)) if kind else (int(number), 0)
