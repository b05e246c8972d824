"""Training with several workers: a strategy with a time limit, and a function that runs workers on one machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import tensorflow as tf


def multi_worker_strategy(
    timeout: float = 300.0, resolver: tf.distribute.cluster_resolver.ClusterResolver | None = None
) -> tf.distribute.Strategy:
    """Returns a `MultiWorkerMirroredStrategy` in which no worker waits forever for another.

    Call this before any other TensorFlow function, because it opens the connections of the cluster.

    Args:
        timeout: Float above 0, in seconds. How long a worker waits for the others in a step. It must be longer
            than the time that the slowest worker needs to trace its first step.
        resolver: A cluster resolver that says who takes part, for example
            `tf.distribute.cluster_resolver.SlurmClusterResolver()` under Slurm; None reads `TF_CONFIG`.

    Returns:
        A `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        ValueError: If there is no resolver and `TF_CONFIG` names no cluster.
    """
    if resolver is None and not json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster"):
        raise ValueError(
            "TF_CONFIG must say who takes part: "
            '{"cluster": {"worker": ["host1:port", "host2:port"]}, "task": {"type": "worker", "index": 0}}. '
            f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}. Or pass a `resolver`"
        )
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout)
    resolver = resolver or tf.distribute.cluster_resolver.TFConfigClusterResolver()
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver, communication_options=options)


def run_workers(command: Sequence[str], count: int, grace: float = 30.0) -> int:
    """Runs several workers of a command on this machine and shows the output of the first.

    Once a worker has failed, the others have `grace` seconds to end by themselves and are then killed. SIGTERM is
    passed on to all of them.

    Args:
        command: The program and its arguments.
        count: Int above 0. The number of workers.
        grace: Float, seconds.

    Returns:
        Int. The exit status of the first worker that failed, or 0.
    """
    addresses = free_addresses(count)
    workers: list[subprocess.Popen] = []
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda number, _: _send(workers, number))
    try:
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            # Split the cores between the workers; otherwise their thread pools compete.
            threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, _cores() // count))}
            environment = {**threads, **os.environ, "TF_CONFIG": json.dumps(task)}
            shown = None if index == 0 else subprocess.DEVNULL
            workers.append(subprocess.Popen(command, env=environment, stdout=shown))
        status: int = 0
        deadline = None
        while any(worker.poll() is None for worker in workers):
            status = status or next(filter(None, (worker.poll() for worker in workers)), 0)
            if status and deadline is None:
                deadline = time.monotonic() + grace
                print(f"A worker ended with status {status}; the others are stopped", file=sys.stderr)
            if deadline is not None and time.monotonic() > deadline:
                break
            with contextlib.suppress(KeyboardInterrupt):  # the workers get Ctrl-C too, and save their state
                time.sleep(0.1)
        return status or next(filter(None, (worker.poll() for worker in workers)), 0)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _send(workers: Sequence[subprocess.Popen], number: int) -> None:
    for worker in workers:
        worker.send_signal(number)


def free_addresses(count: int) -> list[str]:
    """Returns addresses of this machine with ports that no process uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
