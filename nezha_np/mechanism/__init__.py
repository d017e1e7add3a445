"""The one mechanism: a model that is written once can be run, run faster, traced and differentiated.

A layer is a plain function with a decorator. A **primitive** returns one array, and its gradient is registered for it::

    @primitive
    def add(x, y): ...

    @gradient_of(add)
    def add_gradient(dz, z, x, y): ...

A **composite** is made of other layers and takes a view of the weights, ``w.at("attention.self")``. A **constant**
makes arrays that no gradient is taken by: masks, tables, input arrays. A call of a layer does one of four things:

1. run its definition, the function as it is written;
2. run a faster kernel that `nezha_np.kernels` holds for it and for the array's library;
3. inside ``with trace() as t``: run the definition and record the result under its full name;
4. under `value_and_grad`: record the call on a tape, which is then walked backwards through the gradients; layers and
   gradients run by kernels there too, where there are any.

    layer          the decorators, and the choice between kernel and definition
    view           the weights below one prefix
    recorder       what every call of a layer is handed to while a pass is recorded
    trace          every intermediate array by its full name
    tape           a trace that can be walked backwards
    calls          what a tape keeps of a call
    identities     numbers that tell arrays apart without holding them
    gradient_sums  the gradients that a walk back has come to, their parts added up in place
    gradients      `value_and_grad`: a pass on a tape, and the walk back
    interventions  what replaces the arrays whose names fit a pattern
    intervene      a pass whose named intermediates are replaced while it runs
    patterns       the one language of patterns of names: ``*`` within a part of a name, ``**`` across parts
    summary        named arrays as a table of plain text

The active recorder lives in a context variable, so that threads do not see each other's.
"""

from nezha_np.mechanism.gradients import value_and_grad
from nezha_np.mechanism.intervene import intervene
from nezha_np.mechanism.layer import (
    ArrayLayer,
    CompositeLayer,
    Kernel,
    Layer,
    checkpointed,
    composite,
    constant,
    gradient_of,
    primitive,
)
from nezha_np.mechanism.recorder import Recorder, definitions, dropout_key, dropout_start, recording
from nezha_np.mechanism.tape import Tape
from nezha_np.mechanism.trace import Trace, trace
from nezha_np.mechanism.view import View

__all__ = [
    "ArrayLayer",
    "CompositeLayer",
    "Kernel",
    "Layer",
    "Recorder",
    "Tape",
    "Trace",
    "View",
    "checkpointed",
    "composite",
    "constant",
    "definitions",
    "dropout_key",
    "dropout_start",
    "gradient_of",
    "intervene",
    "primitive",
    "recording",
    "trace",
    "value_and_grad",
]
