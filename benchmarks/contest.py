"""Fair timing: the packages take turns in one process, with the same number of threads.

Threads. `set_threads` gives NumPy's BLAS its number through threadpoolctl and torch its own through
torch.set_num_threads; ONNX Runtime gets it as intra_op_num_threads of its session (rivals.py).

Pauses. After a call a library lets its threads spin for a while, so that they can start the next call at once: OpenBLAS
and ONNX Runtime for almost 0.1 s, on one core each; torch not at all (measured as CPU time during a sleep). Within a
library's own turn this belongs to its speed, so each library has its default. But it would slow down the next one: so
there is a pause before each turn, longer than the threads spin.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable

from machine import cores

PAUSE = 0.2  # seconds
TURN = 0.3  # seconds, the shortest turn: short runs are repeated

Run = Callable[[], object]


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    count = cores()
    parser.add_argument("--threads", type=int, default=count, help=f"threads of each contestant (all cores: {count})")


def set_threads(count: int) -> None:
    """Give NumPy's BLAS, and torch where it is loaded, this number of threads, for the rest of the process."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        if count != cores():  # the default of every BLAS
            raise SystemExit("--threads needs threadpoolctl, to tell NumPy's BLAS: pip install threadpoolctl") from None
    else:
        ThreadpoolController().select(user_api="blas").limit(limits=count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def take_turns(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Let the contestants take turns; return the seconds of each turn.

    Another one starts in each round, so that no contestant always runs after the same one.
    """
    names = list(runs)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run()  # fills the caches
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            seconds[name].append(one_turn(runs[name]))
    return seconds


def one_turn(run: Run, least: float = TURN) -> float:
    """Return the seconds of one run; if a run is short, the median of all runs in a turn except the first.

    The first run after a pause wakes threads and fills caches, which matters only if a run is short.
    """
    first = time_once(run)
    if first >= least:
        return first
    times: list[float] = []
    while sum(times) < least:
        times.append(time_once(run))
    return statistics.median(times)


def time_once(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def geometric_mean(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))
