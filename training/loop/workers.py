"""Several workers: the strategy with time limits, and workers of one machine."""

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
from typing import Any

import tensorflow as tf


def multi_worker_strategy(timeout: float = 300.0, resolver: Any = None) -> tf.distribute.Strategy:
    """A `MultiWorkerMirroredStrategy` of which no worker waits for ever for another.

    Call it before anything else of TensorFlow: it opens the connections of the cluster.

    Args:
        timeout: seconds that a worker waits for the others in a step; more than the slowest needs to trace its
            first one.
        resolver: who takes part; None reads `TF_CONFIG`. `tf.distribute.cluster_resolver.SlurmClusterResolver()`
            under Slurm.
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
    """Runs `count` workers of a command on this machine; the first one's output is shown.

    Once a worker has failed, the others have `grace` seconds to end by themselves, and are then killed. SIGTERM
    goes on to all of them.

    Returns:
        The exit status: that of the first worker that failed, or 0.
    """
    addresses = free_addresses(count)
    workers: list[subprocess.Popen] = []
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, lambda number, _: _send(workers, number))
    try:
        for index in range(count):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            # With all threads in each of them they would stand in each other's way.
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
                print(f"A worker ended with status {status}; the others follow", file=sys.stderr)
            if deadline is not None and time.monotonic() > deadline:
                break
            with contextlib.suppress(KeyboardInterrupt):  # they got it too, and save
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
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _send(workers: Sequence[subprocess.Popen], number: int) -> None:
    for worker in workers:
        worker.send_signal(number)


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine with ports that nobody uses now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
