"""MPI: the processes of one machine or of many that train together.

    mpiexec -n 4 python -m mpi4py -m nezha_np pretrain …

`python -m mpi4py` ends all processes where one ends with an error; without it the others would wait for that one for
ever.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from nezha_np.arrays import asarray_like, library, to_numpy
from nezha_np.training.data_parallel import ALONE, Processes

# The variables in which a launcher tells a process its number, and how many there are.
LAUNCHERS = (
    ("PMI_RANK", "PMI_SIZE"),  # MPICH, Intel MPI, srun --mpi=pmi2
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),  # MVAPICH
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),  # srun --mpi=pmix
)
COMMAND = "mpiexec -n N python -m mpi4py"


def launched() -> tuple[int, int]:
    """Return the number of this process among those that a launcher of MPI has started, and how many they are.

    Returns
    -------
    rank, size : int
        0 and 1 where no launcher has started this process.

    Examples
    --------
    >>> launched()
    (0, 1)
    """
    for rank, size in LAUNCHERS:
        numbers = os.environ.get(rank, ""), os.environ.get(size, "")
        if all(number.isdecimal() for number in numbers):
            return int(numbers[0]), int(numbers[1])
    return 0, 1


def mpi_processes(*, gpu_buffers: bool | None = None) -> Processes:
    """Return the processes that ``mpiexec`` has started, as this one sees them.

    Parameters
    ----------
    gpu_buffers : bool, optional
        Whether MPI is given arrays on a GPU as they are, which needs an MPI that was built for it. False: they are
        summed in memory of the host. None: what MPI says of itself.

    Returns
    -------
    Processes
        The processes; a single one where this is the only one.

    Raises
    ------
    ModuleNotFoundError
        If there are several, and mpi4py is not installed.
    ValueError
        If there are several, and they were not started by ``python -m mpi4py``.

    Examples
    --------
    >>> mpi_processes().size
    1
    """
    if launched()[1] == 1:
        return ALONE
    check_start()
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    on_gpu = _takes_gpu_buffers(MPI) if gpu_buffers is None else gpu_buffers

    def sum_in_place(buffer: Any) -> None:
        if library(buffer) == "numpy":
            world.Allreduce(MPI.IN_PLACE, buffer)
        elif on_gpu:
            to_numpy(buffer[:1])  # waits until the GPU has written the buffer
            world.Allreduce(MPI.IN_PLACE, buffer)
        else:
            host = np.array(to_numpy(buffer))
            world.Allreduce(MPI.IN_PLACE, host)
            buffer[...] = asarray_like(buffer, host)

    return Processes(world.rank, world.size, sum_in_place, world.bcast)


def check_start() -> None:
    """Check that several processes were started in the way in which they can train together.

    Raises
    ------
    ModuleNotFoundError
        If mpi4py is not installed.
    ValueError
        If they were not started by ``python -m mpi4py``.

    Examples
    --------
    >>> import sys
    >>> "mpi4py.run" in sys.modules
    False
    """
    size = launched()[1]
    if importlib.util.find_spec("mpi4py") is None:
        raise ModuleNotFoundError(
            f'mpiexec has started {size} processes, which need mpi4py to train together: pip install "nezha-np[mpi]", '
            f"then {COMMAND} -m nezha_np …",
            name="mpi4py",
        )
    if "mpi4py.run" not in (*sys.modules, *sys.orig_argv):
        raise ValueError(
            f"mpiexec has started {size} processes without mpi4py, so that each would train by itself: start them by "
            f"{COMMAND} -m nezha_np …"
        )


def first_caller() -> tuple[Callable[[], bool], Callable[[], object]]:
    """Return a function that is true in the first process that calls it, and false in all others.

    All processes call this one together. The function that it returns may be called by any of them at any time,
    whatever the others do.

    Returns
    -------
    is_first : callable
        The function.
    free : callable
        What all processes call together when none needs it any more.

    Examples
    --------
    Of several processes that fail, one says why::

        is_first, free = first_caller()
        try:
            train()
        except Exception as error:
            if is_first():
                print(error)
            raise
        free()
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    window = MPI.Win.Allocate(8 if world.rank == 0 else 0, 8, comm=world)  # how many have called, in process 0
    if world.rank == 0:
        np.frombuffer(window.tomemory(), np.int64)[...] = 0
    world.Barrier()

    def is_first() -> bool:
        one, before = np.ones(1, np.int64), np.zeros(1, np.int64)
        window.Lock(0)
        window.Fetch_and_op(one, before, 0)
        window.Unlock(0)
        return int(before[0]) == 0

    return is_first, window.Free


def _takes_gpu_buffers(mpi: Any) -> bool:
    """Ask MPI, from version 4.1 on, which kinds of memory it takes."""
    kinds = mpi.COMM_WORLD.Get_info().get("mpi_memory_alloc_kinds") or ""
    return any(kind in kinds for kind in ("cuda", "rocm"))
