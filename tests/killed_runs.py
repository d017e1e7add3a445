"""A command that is killed again and again, and started again each time, until it ends by itself.

It is killed just before something is done in the folder of its run: a file is opened, renamed or removed, a folder is
made. What it does is counted, not the time: the same moments on every machine. Started as a program, this file is the
command that is killed: ``killed_runs.py FOLDER COUNT WORD...``.
"""

import os
import random
import signal
import subprocess
import sys

CHANGES = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir")  # events of sys.addaudithook


def run_and_kill(command, folder, *, most, kills):
    """Run ``nezha-np`` with these words, kill it, and run it again until it ends; return how often it was killed.

    Each of the `kills` comes before one of the first `most` times, drawn at random, that something is done in `folder`.
    """
    killed, chooser = 0, random.Random(1)
    while True:
        count = chooser.randint(1, most) if killed < kills else 0
        process = subprocess.run(
            [sys.executable, __file__, str(folder), str(count), *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, process.stderr
            return killed
        killed += 1


def kill_before(folder, count):
    """Kill this process just before the `count`-th time that something is done in `folder`."""
    done = 0

    def watch(event, arguments):
        nonlocal done
        path = arguments[0] if event in CHANGES else None
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(folder):
            done += 1
            if done == count:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    from nezha_np.cli import main

    kill_before(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
