"""One of several processes fails in a step of its run: ``failing_process.py RANK STEP HOW WORD...``.

Just before the step it raises, or is killed, or says that it waits for a signal and waits.
"""

import os
import signal
import sys
import time

from nezha_np.cli import main
from nezha_np.training import loop
from nezha_np.training.mpi import launched


def fail(how):
    if how == "raise":
        raise MemoryError("too much")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "wait":
        print("waiting", file=sys.__stderr__, flush=True)
        time.sleep(300)


def fail_in(rank, number, how):
    after = loop._next_step

    def next_step(step, *arguments):
        if step.number == number and launched()[0] == rank:
            fail(how)
        return after(step, *arguments)

    loop._next_step = next_step


if __name__ == "__main__":
    fail_in(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    sys.exit(main(sys.argv[4:]))
