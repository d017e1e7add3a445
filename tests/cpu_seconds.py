"""A limit of the time that something may take."""

import contextlib
import gc
import time


@contextlib.contextmanager
def within(seconds):
    """Fail where what is done here takes more seconds of this process, whatever else the machine does.

    No garbage is collected meanwhile: after thousands of tests, that alone takes a second now and then.
    """
    collects = gc.isenabled()
    gc.disable()
    start = time.process_time()
    try:
        yield
        taken = time.process_time() - start
    finally:
        if collects:
            gc.enable()
    assert taken < seconds
