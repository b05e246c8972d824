"""What the server costs over the bare SavedModel, what batching gains, and whether the server stands a long load.

    python benchmarks/serving.py                      # about fourteen minutes
    python benchmarks/serving.py load --minutes 60    # only one case; the rows of the others stay

The server runs in one process and the clients in another, over loopback. The model is a small CNN for 28x28
images, and `predict_mc` takes 30 samples. `latency` is the median time of one client with batches of one image:
REST against the signature called in a process, both warm. `throughput` is the number of answers a second for one
client and for 64 at once, the median of three rounds. `load` mixes good and bad requests, a hundred a second for
ten minutes: every good one must be answered, every bad one must be refused with its 4xx, and the server's memory
must not grow. Results: benchmarks/results/serving.csv.
"""

import argparse
import asyncio
import csv
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import psutil
import tensorflow as tf

from dropzoo import models, serving

RESULTS = Path(__file__).parent / "results" / "serving.csv"
Add = Callable[..., None]  # takes case, what, value, unit and must
IMAGE = np.random.default_rng(0).random((1, 28, 28, 1), "float32")
JSON = json.dumps({"instances": IMAGE.astype("float64").round(4).tolist()}).encode()
PNG = tf.io.encode_png((IMAGE[0] * 255).astype("uint8")).numpy()


def bomb(width: int, height: int) -> bytes:
    """Returns a PNG whose header claims this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


def request(verb: str, body: bytes, kind: str = "application/json", name: str = "cnn") -> bytes:
    head = f"POST /v1/models/{name}:{verb} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


# The requests of the load, and the status that must come back for each.
MIXED = [
    (request("predict", JSON), 200),
    (request("predict_mc", JSON), 200),
    (request("predict", PNG, "image/png"), 200),
    (request("predict", JSON), 200),
    (request("predict", JSON[:-9]), 400),
    (request("predict", b'{"instances": [[[[1, 2, 3]]]]}'), 400),
    (request("predict", PNG[:200], "image/png"), 400),
    (request("predict", b"no image", "image/png"), 400),
    (request("predict", JSON, name="cat"), 404),
    (request("predict", bomb(10_000, 10_000), "image/png"), 413),
]


class Client:
    """A client with one open connection. It does as little as HTTP allows, so that only the server is measured."""

    def __init__(self, port: int) -> None:
        self._port, self._streams = port, None

    async def send(self, message: bytes) -> int:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
        if b"connection: close" in head:
            writer.close()
            self._streams = None
        return int(head[9:12])

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()


async def latency(port: int, message: bytes, count: int) -> list[float]:
    client, times = Client(port), []
    for _ in range(count):
        start = time.perf_counter()
        assert await client.send(message) == 200  # noqa: S101
        times.append(time.perf_counter() - start)
    client.close()
    return times


async def throughput(port: int, message: bytes, clients: int, seconds: float) -> float:
    """Returns the answers a second."""
    end = time.perf_counter() + seconds

    async def one() -> int:
        client, count = Client(port), 0
        while time.perf_counter() < end:
            assert await client.send(message) == 200  # noqa: S101
            count += 1
        client.close()
        return count

    return sum(await asyncio.gather(*(one() for _ in range(clients)))) / seconds


async def load(port: int, requests: int, seconds: float = 0, clients: int = 16) -> Counter:
    """Sends requests, spread evenly over the seconds; some clients hang up in the middle of one.

    Returns how often each pair of an expected and a received status occurred.
    """
    met: Counter = Counter()
    left, begin = iter(range(requests)), time.perf_counter()

    async def one() -> None:
        client = Client(port)
        for i in left:
            message, expected = MIXED[i % len(MIXED)]
            await asyncio.sleep(begin + i * seconds / requests - time.perf_counter())
            if i % 97 == 0:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(message[: len(message) // 2])
                writer.close()
                met["hung up", ""] += 1
                continue
            met[expected, await client.send(message)] += 1
        client.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return met


def bare(folder: Path, signature: str, count: int) -> float:
    """Returns the median time of the bare signature, from array to arrays."""
    function = tf.saved_model.load(str(folder / "1")).signatures[signature]
    times = []
    for _ in range(count + 20):
        start = time.perf_counter()
        for value in function(images=tf.constant(IMAGE)).values():
            value.numpy()
        times.append(time.perf_counter() - start)
    return statistics.median(times[20:])


def start(folder: Path) -> tuple[subprocess.Popen, int]:
    command = [sys.executable, "-m", "dropzoo.cli", "serve", str(folder), "--port", "0"]
    log = folder.parent / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, stderr=file)
    while process.poll() is None:
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return process, int(found[1])
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; all of them by default")
    parser.add_argument(
        "--minutes",
        type=float,
        default=10,
        help="length of the load, which sends a hundred requests a second (10)",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"the cases are {', '.join(CASES)}. Received: {', '.join(unknown)}")
    wanted = arguments.cases or list(CASES)
    rows: dict[str, list[list[str]]] = {case: [] for case in CASES}
    if RESULTS.exists():
        for row in list(csv.reader(RESULTS.read_text().splitlines()))[1:]:
            rows[row[0]] += [row] if row[0] not in wanted else []

    def add(case: str, what: str, value: float, unit: str, must: str = "") -> None:
        rows[case].append([case, what, str(round(value, 3)), unit, must])
        print(f"{case:12} {what:44} {value:10.3f} {unit:6} {must}")

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "cnn"
        model = models.build_model("simple_cnn", input_shape=(28, 28, 1), dropout={"dense*": 0.5})
        serving.export_model(model, folder, 30)
        process, port = start(folder)
        try:
            for case in CASES:
                if case in wanted:
                    CASES[case](folder, port, psutil.Process(process.pid), arguments.minutes, add)
        finally:
            process.terminate()
            process.wait(60)
    with open(RESULTS, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("case", "what", "value", "unit", "must"))
        writer.writerows(row for case in rows.values() for row in case)


def measure_latency(folder: Path, port: int, process: psutil.Process, minutes: float, add: Add) -> None:
    for verb, signature, count in (("predict", "serving_default", 1000), ("predict_mc", "predict_mc", 200)):
        message = request(verb, JSON)
        asyncio.run(latency(port, message, 50))
        # They take turns, so that both see the same machine; the smallest median of three counts.
        pairs = [(bare(folder, signature, count), asyncio.run(latency(port, message, count))) for _ in range(3)]
        own = 1000 * min(pair[0] for pair in pairs)
        rest = 1000 * min(statistics.median(pair[1]) for pair in pairs)
        add("latency", f"{verb}: the bare signature, p50", own, "ms")
        add("latency", f"{verb}: REST, p50", rest, "ms")
        add("latency", f"{verb}: REST over bare", rest - own, "ms", "<= 3" if verb == "predict" else "")


def measure_throughput(folder: Path, port: int, process: psutil.Process, minutes: float, add: Add) -> None:
    for verb, body, kind in (
        ("predict", JSON, "application/json"),
        ("predict_mc", JSON, "application/json"),
        ("predict_mc", PNG, "image/png"),
    ):
        message, name = request(verb, body, kind), f"{verb}, {kind.partition('/')[2]}"
        rounds = [[asyncio.run(throughput(port, message, n, 4)) for n in (1, 64)] for _ in range(3)]
        one, many = (statistics.median(rates) for rates in zip(*rounds, strict=True))
        add("throughput", f"{name}: one client", one, "1/s")
        add("throughput", f"{name}: 64 clients", many, "1/s")
        add("throughput", f"{name}: 64 over one", statistics.median(b / a for a, b in rounds), "x", ">= 3")


def measure_load(folder: Path, port: int, process: psutil.Process, minutes: float, add: Add) -> None:
    asyncio.run(load(port, 15_000))  # so that caches and pools have their full size
    before = process.memory_info().rss / 2**20
    begin = time.perf_counter()
    met = asyncio.run(load(port, max(1, int(6000 * minutes)), 60 * minutes))
    seconds, after = time.perf_counter() - begin, process.memory_info().rss / 2**20
    wrong = sum(count for (expected, came), count in met.items() if came not in ("", expected))
    add("load", "requests, good and bad", sum(met.values()), "")
    add("load", "answers with another status than expected", wrong, "", "0")
    add("load", "time", seconds, "s")
    add("load", "memory before", before, "MiB")
    add("load", "memory after", after, "MiB", "no growth")


CASES = {"latency": measure_latency, "throughput": measure_throughput, "load": measure_load}


if __name__ == "__main__":
    main()
