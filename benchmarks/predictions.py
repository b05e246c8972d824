"""Measures predictions of many and of large images, and answers of the server in other forms than JSON.

    python benchmarks/predictions.py large      the memory of `dropzoo predict --tile` on 10,000 x 10,000 pixels
    python benchmarks/predictions.py folder     images a second of a folder, against a loop over `mc(image)`
    python benchmarks/predictions.py answers    the size and the time of an answer to 256 x 256, by its form
    python benchmarks/predictions.py intervals  how often intervals of counts and areas hold, over splits

Each prints a table. With `--side` and `--count` the first two are smaller.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tifffile
from PIL import Image

from _intervals import over_splits
from dropzoo import models, serving

_TILE, _OVERLAP = 512, 64


def _unet(path: Path, **options: object) -> Path:
    plan = {"bottleneck*": "spatial_dropout2d:0.5"}
    model = models.build_model("unet", input_shape=(None, None, 1), num_classes=2, dropout=plan, **options)
    model.save(path)
    return path


def large(side: int) -> None:
    """Predicts a large file in a process of its own, and compares a part of it with one whole pass."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _unet(folder / "unet.keras", depth=1, filters=2)
        image = tifffile.memmap(folder / "large.tif", shape=(side, side), dtype="uint8", photometric="minisblack")
        random = np.random.default_rng(0)
        for row in range(0, side, 500):
            image[row : row + 500] = random.integers(0, 256, image[row : row + 500].shape, "uint8")
        image.flush()
        command = ["predict", "large.tif", "--model", "unet.keras", "--out", "out", "--save", "mask,probabilities"]
        command += ["--format", "tiff", "--tile", str(_TILE), "--overlap", str(_OVERLAP), "--num-samples", "2"]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "dropzoo.cli", *command], cwd=folder, check=True)
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        difference = _difference(folder, model)
        print(f"| {side} x {side} | {seconds:.0f} s | {memory:.2f} GiB | {difference:.1e} |")


def _difference(folder: Path, model: Path) -> float:
    """The largest difference to one whole pass over a part of the image, away from the borders of the part."""
    from dropzoo.runs.predictors import load_predictor

    size, far = 1200, 128
    predictor = load_predictor(model, 2, sampling="fixed", say=lambda text: None)
    with tifffile.TiffFile(folder / "large.tif") as file:
        part = np.asarray(file.pages[0].asarray(out="memmap")[:size, :size])
    whole = predictor.predict((part / np.float32(255))[None, ..., None])["mean"][0]
    tiled = tifffile.memmap(folder / "out" / "large_probabilities.tif", mode="r")[:, :size, :size]
    inner = slice(far, size - far)
    return float(np.abs(whole[inner, inner] - np.moveaxis(tiled, 0, -1)[inner, inner]).max())


def folder(count: int) -> None:
    """Predicts a folder of images, against a plain loop over the files, with a U-Net and with a classifier."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        random = np.random.default_rng(0)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (64, 64), "uint8")).save(root / "images" / f"{i:04}.png")
        _compare(root, _unet(root / "unet.keras", depth=2, filters=8))
        cnn = models.build_model("simple_cnn", input_shape=(64, 64, 1), dropout={"dense1": 0.5})
        cnn.save(root / "cnn.keras")
        _compare(root, root / "cnn.keras")


def _compare(root: Path, path: Path) -> None:
    """Predicts the images with a model in both ways, in turns, and prints the medians. The first turn compiles."""
    from dropzoo.predictions.run import Plan, predict_into
    from dropzoo.runs.predictors import load_predictor

    predictor = load_predictor(path, 10, votes=True, say=lambda text: None)
    mc = load_predictor(path, 10, say=lambda text: None).sampler
    files = sorted((root / "images").glob("*.png"))

    def loop() -> None:
        lines = []
        for file in files:
            image = np.asarray(Image.open(file), "float32")[None, ..., None] / 255
            best = np.asarray(mc(image)["mean"][0]).argmax(-1)
            if predictor.is_map:
                Image.fromarray(best.astype("uint8")).save(root / file.name)
            else:
                lines.append(f"{file},{best}")
        (root / "loop.csv").write_text("\n".join(lines))

    def ours() -> None:
        table = root / f"{path.stem}.csv"
        kinds = ("mask",) if predictor.is_map else None
        predict_into(predictor, [root / "images"], Plan(root / path.stem, kinds, table=table, overwrite=True))

    turns = [(_seconds(loop), _seconds(ours)) for _ in range(6)][1:]
    plain, folder = (statistics.median(each) for each in zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    print(f"| {path.stem}, {len(files)} images | loop {plain:.1f} s | folder {folder:.1f} s | {ratio:.2f} x |")


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def answers(repeats: int = 15) -> None:
    """Asks a server in this process for the answer to one image, in each form."""
    import http.client
    import socket
    import threading

    import uvicorn

    from dropzoo.serving.server.app import create_app

    with tempfile.TemporaryDirectory() as name:
        model = keras.models.load_model(_unet(Path(name) / "unet.keras", depth=1, filters=2))
        serving.export_model(model, Path(name) / "m" / "1", num_samples=1)
        server = uvicorn.Server(uvicorn.Config(create_app(Path(name) / "m"), log_level="warning"))
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        image = np.random.default_rng(0).integers(0, 256, (256, 256), "uint8")
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        numbers = json.dumps({"instances": (image[None, ..., None] / 255).round(4).tolist()}).encode()
        first: tuple[float, float] | None = None
        for kind, body, accept in (
            ("application/json", numbers, "application/json"),
            ("image/png", file.getvalue(), "application/json"),
            ("image/png", file.getvalue(), "application/x-npz"),
            ("image/png", file.getvalue(), "application/x-npy"),
            ("image/png", file.getvalue(), "image/png"),
        ):
            times, size = [], 0
            for _ in range(repeats):
                connection = http.client.HTTPConnection("127.0.0.1", port)
                start = time.perf_counter()
                headers = {"Content-Type": kind, "Accept": accept}
                connection.request("POST", "/v1/models/m:predict_mc", body, headers)
                answer = connection.getresponse().read()
                if accept == "application/json":
                    json.loads(answer)
                times.append(time.perf_counter() - start)
                size = len(answer)
                connection.close()
            taken = statistics.median(times)
            first = first or (size, taken)
            shares = f"1/{first[0] / size:.0f} of the size, 1/{first[1] / taken:.1f} of the time"
            print(f"| {kind} -> {accept} | {size:,} bytes | {taken * 1000:.1f} ms | {shares} |")
        server.should_exit = True
        thread.join(30)


def intervals(count: int, splits: int = 200) -> None:
    """Calibrates intervals on half of the scenes, and counts how often they hold on the other half."""
    from dropzoo.predictions.measuring import Measure, masks_of_samples, numbers_of
    from dropzoo.runs.predictors import load_predictor
    from dropzoo.training.data.digits import digits_by_split, draw_scene

    path = Path(__file__).parent.parent / "saved_models" / "digit_scenes_unet"
    predictor = load_predictor(path / "model.keras", 20, votes=True, sampling="fixed", say=lambda text: None)
    how = Measure()
    found: dict[str, list[tuple[float, float, float]]] = {"count": [], "area": []}
    digits, labels = digits_by_split()["test"]
    for i in range(count):
        drawn, mask = draw_scene(digits, labels, [9, i])
        image = drawn[..., None] / np.float32(255)
        mean, samples = masks_of_samples(predictor, image)
        estimate, truth = (numbers_of(how.objects((each > 0).astype(int), 1, image), how) for each in (mean, mask))
        sampled = [numbers_of(how.objects((each > 0).astype(int), 1, image), how) for each in samples]
        for name in found:
            found[name].append((estimate[name], float(np.std([each[name] for each in sampled])), truth[name]))
    for name, triples in found.items():
        row = over_splits(np.array(triples), splits)
        shown = f"covered {row['covered']:.3f} | width {row['width']:.2f} | on the bare number {row['bare']:.2f}"
        print(f"| {name} | {shown} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["large", "folder", "answers", "intervals"])
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    {
        "large": lambda: large(given.side),
        "folder": lambda: folder(given.count),
        "answers": answers,
        "intervals": lambda: intervals(given.count),
    }[given.what]()
