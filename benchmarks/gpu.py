"""What dropout costs on one GPU: images a second, peak memory, and the share of the step that is dropout.

    python benchmarks/gpu.py            # one GPU, under 8 minutes; benchmarks/results/gpu.csv
    python benchmarks/gpu.py --smoke    # tiny sizes on any device, prints only, to see that the script runs

The networks are a U-Net on 512x512 and WRN-28-10 on 32x32, in float32, tf32 and mixed bfloat16, with and without
XLA. Each runs without dropout, and with element-wise dropout, spatial dropout and DropBlock at the same sites.
These four take turns, and the figures are medians. XLA compiles each network anew, which takes long; settings for
which no time is left are listed as skipped.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from _shared import write_csv
from dropzoo.models import build_model, list_sites
from dropzoo.runs.devices import prepare_devices
from dropzoo.training import Trainer

RESULTS = Path(__file__).parent / "results" / "gpu.csv"
DROPOUTS = {
    "none": None,
    "element-wise": "dropout:0.1",
    "spatial": "spatial_dropout2d:0.1",
    "DropBlock": "drop_block2d:0.1,block_size=5",
}
PRECISIONS = ("float32", "tf32", "bfloat16")


def unet(spec: str | None, smoke: bool) -> tuple[keras.Model, tuple[int, ...]]:
    options = {"depth": 1, "filters": 2} if smoke else {}
    size = 16 if smoke else 512
    plan = {"*_conv?": spec} if spec else None
    return build_model("unet", input_shape=(size, size, 1), dropout=plan, **options), (
        2 if smoke else 8,
        size,
        size,
    )


def wide_resnet(spec: str | None, smoke: bool) -> tuple[keras.Model, tuple[int, ...]]:
    options = {"filters": 2, "width": 1, "blocks": 1} if smoke else {}
    placed = [site.name for site in list_sites("wide_resnet_28_10", dropout=0.1, **options) if site.spec]
    plan = {name: spec for name in placed} if spec else None
    return build_model("wide_resnet_28_10", dropout=plan, **options), (4 if smoke else 128,)


NETWORKS = {"unet 512x512": unet, "wide_resnet_28_10 32x32": wide_resnet}


def set_precision(precision: str) -> None:
    tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")


def steps_of(build: Callable[..., Any], spec: str | None, xla: bool, steps: int, smoke: bool) -> tuple[Any, int]:
    """Returns a function that runs `steps` training steps, and the number of images in a step."""
    model, labels = build(spec, smoke)
    images = labels[0]
    x = tf.random.stateless_uniform((images, *model.input_shape[1:]), (0, 1))
    y = tf.random.stateless_uniform(labels, (0, 2), 0, 2, tf.int32)
    data = tf.data.Dataset.from_tensors((x, y)).cache().repeat(steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    trainer = Trainer(model, optimizer, loss, [], jit_compile=xla, steps_per_execution=steps)
    return lambda: trainer.fit(data, verbose=0), images


def memory(which: str) -> float:
    """Returns the MiB in use on the GPU, `"current"`, or `"peak"` since the last call; 0 without a GPU."""
    if not tf.config.list_physical_devices("GPU"):
        return 0.0
    found = tf.config.experimental.get_memory_info("GPU:0")[which] / 2**20
    tf.config.experimental.reset_memory_stats("GPU:0")
    return found


def measure(network: str, precision: str, xla: bool, rounds: int, steps: int, smoke: bool) -> list[dict[str, Any]]:
    set_precision(precision)
    times: dict[str, list[float]] = {name: [] for name in DROPOUTS}
    made, peaks = {}, {}
    for name, spec in DROPOUTS.items():
        before = memory("current")  # held by the models before it, which stay in memory to take turns
        made[name] = steps_of(NETWORKS[network], spec, xla, steps, smoke)
        made[name][0]()  # traces, compiles, warms up
        peaks[name] = memory("peak") - before
    for _ in range(rounds):
        for name, (run, _) in made.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) / steps)
    rows = []
    for name, (_, images) in made.items():
        share = statistics.median(1 - off / on for off, on in zip(times["none"], times[name], strict=True))
        speed = round(images / statistics.median(times[name]), 1)
        rows.append({"network": network, "precision": precision, "xla": xla, "dropout": name})
        rows[-1] |= {"images_per_second": speed, "share_of_dropout": round(share, 3)}
        rows[-1] |= {"peak_mib": round(peaks[name]) or None, "note": ""}
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Dropout on one GPU.")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on any device, no file")
    parser.add_argument("--limit", type=float, default=450.0, help="seconds after which no row is begun")
    options = parser.parse_args()
    print(prepare_devices())
    if not options.smoke and not tf.config.list_physical_devices("GPU"):
        raise SystemExit("No GPU is visible to TensorFlow: pip install '.[gpu]', or try --smoke")
    start, longest, rows = time.monotonic(), 0.0, []
    settings = [(n, p, xla) for xla in (False, True) for p in reversed(PRECISIONS) for n in NETWORKS]
    for network, precision, xla in settings:
        begun = time.monotonic()
        if begun - start + longest > options.limit:
            rows.append({"network": network, "precision": precision, "xla": xla, "note": "skipped: out of time"})
            print(rows[-1])
            continue
        keras.backend.clear_session()
        rounds, steps = (1, 2) if options.smoke else (5, 5)
        rows += measure(network, precision, xla, rounds, steps, options.smoke)
        longest = max(longest, time.monotonic() - begun)
    if not options.smoke:
        write_csv(RESULTS, rows)


if __name__ == "__main__":
    main()
