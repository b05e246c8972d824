"""Stands the server a long mixed load with all forms of requests and answers?

    python benchmarks/serving_forms.py                # ten minutes
    python benchmarks/serving_forms.py --minutes 1

The server runs in a process of its own with a U-Net for grey images of any size. Eight clients at once send PNG,
TIFF and NumPy files and compressed JSON, and ask for JSON, label masks as PNG and TIFF, and arrays; and they make
the usual mistakes. Dropout masks are fixed, so each form of each image has one right answer: the first one, which
is compared with a prediction in Python. An answer is wrong if its status or its numbers, by 1e-5, are others.
The memory of the server must not grow. Results: benchmarks/results/serving_forms.csv.
"""

import argparse
import gzip
import http.client
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil
import tifffile
from PIL import Image

from _shared import write_csv
from dropzoo import models, serving

RESULTS = Path(__file__).parent / "results" / "serving_forms.csv"
NPY, NPZ, JSON = "application/x-npy", "application/x-npz", "application/json"
IMAGES = [np.random.default_rng(i).integers(0, 256, (48 + 8 * i, 64), "uint8") for i in range(3)]


@dataclass(frozen=True)
class Question:
    """A request, and the status that must come back.

    Attributes:
        name: What it is, for the table.
        body: The body.
        headers: The headers.
        status: The status that must come back.
        image: The number of the image; None where there is no answer to compare.
    """

    name: str
    body: bytes
    headers: dict[str, str]
    status: int = 200
    image: int | None = None


def questions() -> list[Question]:
    """All forms of requests for each image with all forms of answers, and the usual mistakes."""
    found = []
    for number, image in enumerate(IMAGES):
        for kind, body in files_of(image).items():
            for accept in (JSON, "image/png", "image/tiff", NPY, NPZ):
                headers = {"Content-Type": kind, "Accept": accept, "Accept-Encoding": "identity"}
                found.append(Question(f"{kind} -> {accept}", body, headers, 200, number))
        text = json.dumps({"instances": (image[None, ..., None] / 255).tolist()}).encode()
        zipped = {"Content-Type": JSON, "Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        found.append(Question("compressed JSON", gzip.compress(text), zipped, 200, number))
    png = files_of(IMAGES[0])["image/png"]
    for name, body, headers, status in (
        ("an unknown Accept", png, {"Content-Type": "image/png", "Accept": "text/html"}, 406),
        ("a truncated PNG file", png[: len(png) // 2], {"Content-Type": "image/png"}, 400),
        ("no JSON", b"{", {"Content-Type": JSON}, 400),
        ("no gzip", png, {"Content-Type": "image/png", "Content-Encoding": "gzip"}, 400),
        ("a damaged array", b"\x93NUMPY", {"Content-Type": NPY}, 400),
    ):
        found.append(Question(name, body, headers, status))
    return found


def files_of(image: np.ndarray) -> dict[str, bytes]:
    """An image as files, by their type."""
    png, tiff, npy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    tifffile.imwrite(tiff, image)
    np.save(npy, (image[None, ..., None] / 255).astype("float32"))
    return {"image/png": png.getvalue(), "image/tiff": tiff.getvalue(), NPY: npy.getvalue()}


def values_of(body: bytes, headers: dict[str, str], accept: str) -> np.ndarray:
    """The class of each pixel, or its probabilities, as an answer gives them."""
    data = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
    if accept == "image/png":
        return np.asarray(Image.open(io.BytesIO(data)))
    if accept == "image/tiff":
        return tifffile.imread(io.BytesIO(data))
    if accept in (NPY, NPZ):
        found = np.load(io.BytesIO(data))
        mean = found["mean"] if accept == NPZ else found
        return mean if mean.ndim == 3 else mean[0]
    return np.array(json.loads(data)["predictions"][0]["mean"])


class Clients:
    """Clients that ask until the time is over.

    Args:
        port: Int, the port of the server.
        expected: The right mask of each image.
    """

    def __init__(self, port: int, expected: list[np.ndarray]) -> None:
        self.met, self.wrong = Counter[str](), Counter[str]()
        self._port, self._expected = port, expected
        self._first: dict[tuple[str, int | None], np.ndarray] = {}
        self._lock = threading.Lock()

    def ask(self, seconds: float, seed: int) -> None:
        random, asked = np.random.default_rng(seed), questions()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            question = asked[random.integers(len(asked))]
            connection.request("POST", "/v1/models/unet:predict_mc", question.body, question.headers)
            answer = connection.getresponse()
            body, headers = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
            right = answer.status == question.status and self._is_right(question, body, headers)
            with self._lock:
                self.met[question.name] += 1
                self.wrong[question.name] += not right
        connection.close()

    def _is_right(self, question: Question, body: bytes, headers: dict[str, str]) -> bool:
        if question.image is None:
            return bool(json.loads(body)["error"])
        found = values_of(body, headers, question.headers.get("Accept", JSON))
        with self._lock:
            first = self._first.setdefault((question.name, question.image), found)
        # In a batch of another size, sums may be rounded in another way.
        if first.shape != found.shape or np.abs(first.astype(float) - found).max() > 1e-5:
            return False
        labels, expected = found if found.ndim == 2 else found.argmax(-1), self._expected[question.image]
        return labels.shape == expected.shape and float(np.mean(labels != expected)) < 0.01


def start(folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Starts the server, and returns its process and port once it answers."""
    command = [sys.executable, "-m", "dropzoo.cli", "serve", str(folder), "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    for _ in range(1200):
        if found := re.search(r"http://[\w.]+:(\d+)", log.read_text()):
            return process, int(found[1])
        if process.poll() is not None:
            break
        time.sleep(0.5)
    raise SystemExit(log.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "unet"
        plan = {"bottleneck*": "spatial_dropout2d:0.5"}
        model = models.build_model(
            "unet", input_shape=(None, None, 1), num_classes=3, depth=1, filters=4, dropout=plan
        )
        serving.export_model(model, folder, 5)
        mc = serving.MonteCarlo(model, 5, "fixed")
        expected = [mc((x[None, ..., None] / 255).astype("float32"))["mean"][0].numpy().argmax(-1) for x in IMAGES]
        process, port = start(folder, Path(temporary) / "log")
        try:
            server = psutil.Process(process.pid)
            ask(Clients(port, expected), max(3.0, 6 * arguments.minutes), arguments.clients)  # caches fill
            before, clients = server.memory_info().rss / 2**20, Clients(port, expected)
            ask(clients, 60 * arguments.minutes, arguments.clients)
            after = server.memory_info().rss / 2**20
        finally:
            process.terminate()
            process.wait(60)
    rows: list[dict[str, object]] = [
        {"what": name, "answers": count, "wrong": clients.wrong[name]}
        for name, count in sorted(clients.met.items())
    ]
    rows.append({"what": "all", "answers": clients.met.total(), "wrong": clients.wrong.total()})
    rows.append({"what": "memory in MiB, before and after", "answers": round(before), "wrong": round(after)})
    for row in rows:
        print(row)
    write_csv(arguments.results, rows)


def ask(clients: Clients, seconds: float, count: int) -> None:
    """Lets clients ask at the same time."""
    threads = [threading.Thread(target=clients.ask, args=(seconds, seed)) for seed in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


if __name__ == "__main__":
    main()
