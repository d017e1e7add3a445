"""A signal that asks to stop does so wherever Python is when it comes."""

import signal
import subprocess
import sys

import pytest

# The signal comes while Python runs the callback of a weak reference, and once: what a callback raises is forgotten.
IN_A_CALLBACK = """
import signal, time, weakref

class Thing: pass

def come(reference):
    signal.raise_signal(signal.{name})

def wait():
    thing = Thing()
    reference = weakref.ref(thing, come)
    del thing
    time.sleep(30)
    print("nothing ended this")
"""

OF_THE_COMMAND = """
from nezha_np import cli
cli._run = lambda arguments: wait()
raise SystemExit(cli.main([]))
"""

OF_A_WORKER = """
from nezha_np.jobs import worker
worker._answer_all = lambda answer: wait()
worker.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
@pytest.mark.parametrize(
    ("name", "program", "said"),
    [
        ("SIGINT", OF_THE_COMMAND, "nezha-np: interrupted\n"),
        ("SIGTERM", OF_THE_COMMAND, "nezha-np: interrupted\n"),
        ("SIGTERM", OF_A_WORKER, ""),
    ],
    ids=["the command, Ctrl-C", "the command", "a worker"],
)
def test_a_signal_that_comes_in_a_callback_ends_the_process_and_prints_no_traceback(name, program, said):
    code = IN_A_CALLBACK.format(name=name) + program
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), "", said)


def test_other_exceptions_in_a_callback_are_printed_as_before():
    code = """
import sys, weakref
from nezha_np.signals import raised_signals

class Thing: pass

with raised_signals():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: 1 / 0)
    del thing
assert sys.unraisablehook is sys.__unraisablehook__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ZeroDivisionError" in done.stderr
