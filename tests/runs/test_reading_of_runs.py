"""Other folders, temperatures and exports use what a run knows about its folder; no run is trained."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from _cli import run as command
from dropzoo import serving, training
from dropzoo.cli.data_options import FolderOptions, given
from dropzoo.runs import members
from dropzoo.runs.calibrate import CalibrationConfig, held_out
from dropzoo.runs.comparison import Wanted, compare
from dropzoo.runs.config import RunConfig
from dropzoo.runs.evaluation import fit_temperatures, log_probabilities, with_temperature
from dropzoo.runs.loading import load_model_for
from dropzoo.runs.run import train_run

VOID = 255


def write(root: Path, count: int = 8) -> Path:
    rng = np.random.default_rng(0)
    for n in range(count):
        pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        drawn = 2.5 * pixels / 255 + rng.gumbel(size=pixels.shape)  # from the softmax of these logits
        ids = drawn.argmax(-1).astype(np.uint8)
        ids[0] = VOID
        for name, array in (("images", pixels), ("masks", ids)):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name / f"{n}.png")
    return root


def network(rate: float = 0.3) -> keras.Model:
    """A network of which each logit is five times a channel of the image."""
    parts = [keras.layers.Conv2D(3, 1), keras.layers.Dropout(rate), keras.layers.Conv2D(3, 1)]
    model = keras.Sequential([keras.Input((6, 8, 3)), *parts])
    model.set_weights([np.eye(3)[None, None], np.zeros(3), 5 * np.eye(3)[None, None], np.zeros(3)])
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> training.Data:
    root = write(tmp_path_factory.mktemp("data"))
    return training.load_data(root, ignore_class=VOID, batch_size=4, validation_split=0.4)


@pytest.fixture
def finished(tmp_path) -> Path:
    """A run's folder, as far as it is read here."""
    out, folder = tmp_path / "run", write(tmp_path / "own")
    config = RunConfig(
        model="x", data=str(folder), ignore_class=VOID, class_names="sky,road,car", value_range=(-1000.0, 2000.0)
    )
    info = dataclasses.asdict(config.load_data().info)
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"config": config.to_json(), "info": info, "folder": str(folder)}))
    network().save(out / "model.keras")
    return out


def test_void_pixels_do_not_count_for_the_temperature_of_samples(data):
    model = network(0.0)
    plain = {"plain": log_probabilities(model, None, True)}
    expected = fit_temperatures(plain, data)["plain"]
    title, predict = with_temperature(serving.Ensemble([model], from_logits=True), data)
    assert title == f"ensemble of 1, T = {expected:.2f}" and 1.2 < expected < 4
    images = next(iter(data.test))[0]
    scaled = plain["plain"](images) / expected
    scaled -= np.log(np.exp(scaled).sum(-1, keepdims=True))
    np.testing.assert_allclose(predict(images), scaled, atol=1e-2)


@pytest.mark.costly(keep=0)
def test_samples_and_their_temperature_are_evaluated_with_void_pixels(data):
    found = compare(network(), data, Wanted(num_samples=3, temperature=True, from_logits=True), lambda table: None)
    assert sum("T = " in title for title in found.figures) == 2
    assert all(np.isfinite(figures["nll"]) for figures in found.figures.values())


def test_void_pixels_do_not_count_in_calibrated_answers(data):
    model = network()
    plain = [(images.numpy(), np.where(labels == VOID, 0, labels)) for images, labels in data.train.at_epoch(0)]
    calibration = serving.calibrate(
        serving.MonteCarlo(model, num_samples=2, from_logits=True),
        *(np.concatenate(each) for each in zip(*plain, strict=True)),
        verbose=0,
    )
    found = compare(model, data, Wanted(from_logits=True, calibration=calibration), lambda table: None)
    assert found.promises is not None
    plain, calibrated = (found.figures[name] for name in ("deterministic", "calibrated, 2 passes"))
    assert calibrated["accuracy"] == pytest.approx(plain["accuracy"], abs=0.3) and 0 < calibrated["nll"] < 10


@pytest.mark.parametrize("more", [{"patience": 2}, {"best": True}, {"warmup": 1.0}, {"ema": 0.9}])
def test_snapshots_refuse_what_would_change_their_weights(more):
    RunConfig(model="x", data="digits", epochs=4, snapshots=2)
    with pytest.raises(ValueError, match="--patience, --best, --warmup and --ema, or pass --members N"):
        RunConfig(model="x", data="digits", epochs=4, snapshots=2, **more)


def test_names_of_classes_hold_for_other_folders(finished, tmp_path):
    _, config, loaded = load_model_for(finished, str(write(tmp_path / "other")), split="all")
    assert loaded.info.class_names == ("sky", "road", "car") and loaded.info.num_test == 8
    assert (config.ignore_class, config.value_range) == (VOID, (-1000.0, 2000.0))


def run_of(out: Path, data: Path | str, **settings) -> Path:
    """A run's folder, as far as `calibrate` reads it, whose data are `data`."""
    config = RunConfig(model="x", data=str(data), validation_split=0.5, **settings)
    out.mkdir(parents=True)
    info = dataclasses.asdict(config.load_data().info)
    (out / "run.json").write_text(json.dumps({"config": config.to_json(), "info": info, "folder": None}))
    network().save(out / "model.keras")
    return out


def class_folders(root: Path, split: str = "") -> Path:
    """Class folders of the digits, within the folder of a given split if it has a name."""
    for digit in range(10):
        folder = root / split / str(digit)
        folder.mkdir(parents=True)
        for n in range(4):
            Image.fromarray(np.full((8, 8), 20 * digit + n, np.uint8)).save(folder / f"{n}.png")
    return root


SCENES = ",".join(training.load_data("digit_scenes", limit=2).info.class_names)


@pytest.mark.costly(keep=1)
@pytest.mark.parametrize(
    "data, settings, other",
    [
        ("digits", {"data_dir": "prepared"}, lambda root: class_folders(root / "o")),
        (class_folders, {"test_split": 0.3}, lambda root: class_folders(root / "o", "train")),
        (class_folders, {"class_names": "names.txt"}, lambda root: class_folders(root / "o")),
        (class_folders, {"value_range": (0, 510)}, lambda root: class_folders(root / "o")),
        (write, {"broken": "skip", "class_names": SCENES, "ignore_class": VOID}, lambda root: "digit_scenes"),
    ],
    ids=["data_dir", "test_split", "class_names", "value_range", "ignore_class"],
)
@pytest.mark.filterwarnings("ignore:.*were training images of the run")
def test_a_run_is_calibrated_on_other_data(data, settings, other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # TFDS writes its files there
    own = data if isinstance(data, str) else data(tmp_path / "own")
    if "class_names" in settings and not isinstance(own, str):
        (own / "names.txt").write_text("\n".join(map(str, range(10))))
    run = run_of(tmp_path / "run", own, **settings)
    wanted = CalibrationConfig(data=str(other(tmp_path)))
    _, images, info, _ = held_out(run, wanted, lambda line: None)
    assert sum(len(labels) for _, labels in images) == info.num_train + info.num_validation
    highest = max(float(batch.numpy().max()) for batch, _ in images)
    assert highest == pytest.approx(182 / 510 if "value_range" in settings else highest)


@pytest.mark.parametrize("name, is_same", [("./own", True), ("other", False)])
def test_an_ensemble_goes_on_with_another_name_of_its_folder(name, is_same, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    for folder in ("own", "other"):
        class_folders(tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(members, "train_run", stop)
    run = run_of(tmp_path / "all" / "member1", "own")
    saved = json.loads((run / "run.json").read_text()) | {"folder": str(tmp_path / "own")}
    (run / "run.json").write_text(json.dumps(saved))
    (tmp_path / "all" / "ensemble.json").write_text(json.dumps({"config": saved["config"], "members": 2}))
    config = dataclasses.replace(RunConfig.from_json(saved["config"]), data=name)
    with pytest.raises(
        KeyboardInterrupt if is_same else ValueError, match=None if is_same else "another ensemble"
    ):
        members.train_members(config, tmp_path / "all", 2, lambda line: None)


def test_an_export_says_what_is_scaled_by_the_range_of_values(finished, tmp_path, capsys, monkeypatch):
    target = str(tmp_path / "served")
    status, _, error = command(capsys, "export", str(finished), target, "--image-dtype", "uint16")
    assert status == 2 and "black at -1000 and white at 2000 (`value_range`), and arrays of integers" in error
    monkeypatch.setattr(serving, "export_model", lambda model, path, num_samples, **options: path)
    status, out, error = command(capsys, "export", str(finished), target)
    assert status == 0 and "(value - (-1000)) / 3000, clipped to [0, 1]" in out, error


def test_options_are_written_as_they_were_given():
    options = FolderOptions(masks_as="palette=a b.csv", ignore_class=0, value_range=(-1000.0, 2000.0))
    assert given(options) == ["--masks-as='palette=a b.csv'", "--ignore-class=0", "--value-range=-1000,2000"]
    assert given(FolderOptions()) == []


def test_inspect_names_the_options_that_it_got(tmp_path, capsys):
    write(tmp_path / "own")
    status, out, error = command(
        capsys, "inspect", str(tmp_path / "own"), "--ignore-class", "255", "--validation-split", "0.2"
    )
    assert status == 0 and out.rstrip().endswith("own --ignore-class=255 --validation-split=0.2"), error


def test_a_stopped_run_goes_on_from_the_epochs_that_are_done(finished, tmp_path):
    saved = json.loads((finished / "run.json").read_text())["config"]
    (finished / "checkpoints").mkdir()
    meta = json.dumps({"history": {"loss": [3.0, 2.0, 1.0]}})
    np.savez(finished / "checkpoints" / "epoch00003_step0000000.npz", meta=np.array(meta))
    lines: list[str] = []

    def stop(data: training.Data) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(RunConfig.from_json({**saved, "epochs": 20}), finished, lines.append, show=stop)
    assert any(
        "continues from epoch 3 to 20; from here on, the schedules are those of 20 epochs" in line
        for line in lines
    )
