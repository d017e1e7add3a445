"""Several processes that train together, as threads of one: what sums is an argument of the loop."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nezha_np.training.data_parallel import Processes


def processes_of_threads(size):
    """Make `size` processes that meet at a barrier, and sum in the order of their ranks."""
    barrier, places = threading.Barrier(size), [None] * size

    def meet(rank, value):
        places[rank] = value
        barrier.wait(60)
        found = list(places)
        barrier.wait(60)  # before the next value is put there
        return found

    def make(rank):
        def sum_in_place(buffer):
            total = np.sum(meet(rank, buffer.copy()), axis=0, dtype=buffer.dtype)
            buffer[...] = total

        return Processes(rank, size, sum_in_place, lambda value: meet(rank, value)[0])

    return barrier, [make(rank) for rank in range(size)]


def run_together(size, function):
    """Call a function in each of `size` threads with its `Processes`; return what each returned."""
    barrier, processes = processes_of_threads(size)

    def run(one):
        try:
            return function(one)
        except BaseException:
            barrier.abort()  # the others would wait for this one
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(run, one) for one in processes]
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:  # that of the thread for which the others waited
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    return [future.result() for future in futures]
