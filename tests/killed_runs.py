"""A command that is killed again and again, and started again each time, until it ends by itself."""

import random
import subprocess
import sys


def run_and_kill(command, *, seconds, kills, patience):
    """Run ``nezha-np`` with these words, kill it after a random time, and run it again; return how often it was killed.

    `seconds` are the shortest and the longest time. After `kills` of them it may run for `patience` seconds.
    """
    killed, chooser = 0, random.Random(1)
    while True:
        process = subprocess.Popen(
            [sys.executable, "-m", "nezha_np", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(chooser.uniform(*seconds) if killed < kills else patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        else:
            assert process.returncode == 0
            return killed
