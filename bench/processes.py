"""Candidates of a benchmark in processes of their own, so that memory and threads are theirs alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any, Self

import psutil

QUIET = 0.08
"""Processors that others may use for the machine to count as quiet."""
CLEAN = 0.12
"""And while a sample is taken, for it to count as clean."""


class WorkerError(Exception):
    """A worker could not do what it was asked for; its own traceback is the text."""


@dataclass(frozen=True)
class Sample:
    """One call of a worker."""

    result: Any
    seconds: float
    """As the call took in the worker's process."""
    interference: float
    """Processors that were busy for others meanwhile, 0 to all of them."""

    @property
    def is_clean(self) -> bool:
        """Whether it can be trusted."""
        return self.interference < CLEAN


class Worker:
    """An object in a process of its own, kept alive; its methods are called from here. A context manager."""

    def __init__(self, make: Callable[..., object], *arguments: Any) -> None:
        """Start a process in which `make`, a function at the top of a module, makes the object."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            self._answer()
        except WorkerError:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """What the object's `method` returns. Raises `WorkerError`."""
        return self.sample(method, *arguments, wait=0).result

    def sample(self, method: str, *arguments: Any, wait: float) -> Sample:
        """The same, timed, after at most `wait` seconds in which the machine should come to rest."""
        _come_to_rest(wait)
        busy, started = _busy(), time.perf_counter()
        self._pipe.send((method, arguments))
        result, seconds, own = self._answer()
        wall = time.perf_counter() - started
        return Sample(result, seconds, max(0.0, (_busy() - busy - own) / wall))

    def peak_memory(self) -> float:
        """Most that the process has had in memory so far, in MB, mapped files among it."""
        return float(self.call(_PEAK))

    def close(self) -> None:
        self._pipe.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            answer, error = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(10)
            raise WorkerError(f"the process ended with {self._process.exitcode}; out of memory?") from None
        if error is not None:
            raise WorkerError(error)
        return answer


@dataclass(frozen=True)
class Spread:
    """Figures of one kind over the rounds."""

    median: float
    lowest: float
    highest: float
    samples: int
    disturbed: int
    """Samples while others used the processors: left out of the rest, unless all were so."""
    interference: float
    """Mean over all samples."""

    @classmethod
    def of(cls, samples: list[Sample], value: Callable[[Sample], float] = lambda sample: sample.seconds) -> Self:
        values = [value(sample) for sample in clean(samples)]
        disturbed = sum(not sample.is_clean for sample in samples)
        interference = mean(sample.interference for sample in samples)
        return cls(median(values), min(values), max(values), len(samples), disturbed, interference)

    def to_json(self) -> dict[str, float]:
        return asdict(self)


def clean(samples: list[Sample]) -> list[Sample]:
    """Those that can be trusted, or all where none can."""
    return [sample for sample in samples if sample.is_clean] or samples


_PEAK = "peak memory"


def _serve(pipe: Any, make: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    """The worker's side: make the object, then answer calls until the pipe is closed."""
    served: Any = None
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries talk; standard output is for the tables

    def answer(call: Callable[[], Any]) -> None:
        started, own = time.perf_counter(), time.process_time()
        try:
            result = call()
            pipe.send(((result, time.perf_counter() - started, time.process_time() - own), None))
        except Exception:
            pipe.send((None, traceback.format_exc()))

    def open_() -> None:
        nonlocal served
        served = make(*arguments)

    answer(open_)
    while True:
        try:
            method, values = pipe.recv()
        except EOFError:
            return
        answer(lambda method=method, values=values: _peak() if method == _PEAK else getattr(served, method)(*values))


def _peak() -> float:
    """This process's own: `getrusage` also counts what its parent had when it began."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**20 if sys.platform == "darwin" else size / 1024


def _busy() -> float:
    """Seconds that all processors have worked so far, for whomever."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0))


def _come_to_rest(longest: float) -> None:
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        busy, started = _busy(), time.perf_counter()
        time.sleep(0.3)
        if (_busy() - busy) / (time.perf_counter() - started) < QUIET:
            return
