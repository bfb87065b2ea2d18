"""Work spread over processes by dask: of this machine, or of those that a running scheduler has."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Any

import torch

from operators.errors import import_extra

from ..errors import ConfigError
from .runtime import Runtime

ENGINES = ("here", "dask")
TRIES = 10  # workers that a task may lose before it counts as failed; of a scheduler that runs already: its own number
SECONDS = 20  # to reach a scheduler
ALONE = threading.Lock()
"""Held by a task: a worker with several threads does one at a time, on the one GPU it has."""


@dataclass(frozen=True)
class Cluster:
    """Where tasks run: by the ``scheduler`` at an address, or by ``workers`` processes of this machine.

    Without either there is a worker for each GPU, or, where there is none, for each core, with one thread each.
    Raises `ConfigError` for both, and for fewer workers than one.
    """

    scheduler: str | None = None
    workers: int | None = None

    def __post_init__(self):
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers is {self.workers}.", "It is a number of processes, at least 1.")
        if self.workers is not None and self.scheduler is not None:
            raise ConfigError(
                "--workers was given with --scheduler.",
                "A scheduler that runs already has its workers.",
                "Leave one of the two out.",
            )

    def results(
        self, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
    ) -> Generator[tuple[int, Any], None, None]:
        """(number, ``function(*task)``) of each task as it is done, or the exception that it ended with.

        ``function`` is importable by name, arguments and results are plain data. The task of a worker that dies
        is done again by another. Raises `ConfigError` where dask or the scheduler is missing.
        """
        with self.client(len(tasks)) as client, closing(gathered(client, function, tasks)) as found:
            yield from found

    @contextmanager
    def client(self, tasks: int) -> Iterator[Any]:
        """A client of the scheduler, or of one that ends with it."""
        dask, distributed = (
            import_extra(name, "distributed", "Work is spread over processes by", ConfigError, parts)
            for name, parts in (("dask", ("config",)), ("distributed", ()))
        )
        if self.scheduler is not None:
            try:
                client = distributed.Client(self.scheduler, timeout=SECONDS)
            except (OSError, ValueError, TimeoutError) as error:
                raise ConfigError(
                    f"The scheduler at {self.scheduler} does not answer.",
                    f"{type(error).__name__}: {error}",
                    "Start one with: dask scheduler, and name the address that it prints.",
                ) from error
            with client:
                yield client
            return
        count = min(self.workers or torch.cuda.device_count() or os.cpu_count() or 1, max(tasks, 1))
        options = {
            "distributed.scheduler.allowed-failures": TRIES,
            "distributed.worker.daemon": False,  # a worker may have processes of its own
        }
        with (
            dask.config.set(options),
            distributed.LocalCluster(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=0,  # none: the network knows what it needs
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client


def gathered(
    client: Any, function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]
) -> Generator[tuple[int, Any], None, None]:
    """`Cluster.results` by a client."""
    from distributed import as_completed

    futures = [client.submit(function, *task, pure=False) for task in tasks]
    numbers = {future.key: number for number, future in enumerate(futures)}
    try:
        for future in as_completed(futures):
            error = future.exception()
            yield numbers[future.key], future.result() if error is None else error
    finally:
        client.cancel(futures)


@contextmanager
def on_worker() -> Iterator[None]:
    """Around a task: alone in its process, without bars."""
    with ALONE, redirect_stderr(io.StringIO()):
        yield


def own_device(runtime: Runtime) -> Runtime:
    """The runtime of a worker: of several GPUs that it sees, the one of its number."""
    from distributed import get_worker

    name, count = str(get_worker().name), torch.cuda.device_count()
    if runtime.device not in ("auto", "cuda") or count < 2 or not name.isdecimal():
        return runtime
    return replace(runtime, device=f"cuda:{int(name) % count}")
