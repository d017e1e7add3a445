"""Read a pickle without running it: a stack machine that looks up no name, calls nothing, and bounds its work.

A pickle is a program for a small stack machine, and one of its instructions calls any Python function by name: whoever
unpickles a file runs what its author chose. So nothing is unpickled here. The instructions are read one by one
(`pickletools.genops`, which only parses) and carried out on plain values: numbers, strings, tuples, lists and dicts. A
name in the file stays a text and is never looked up in Python. A call is compared with the few that a subclass knows,
each of which has its meaning there; any other is refused with what it would have called, arguments included.

A small file can ask for a lot of work, by instructions that copy, hash, compare or print something large again and
again. Such an instruction is refused, or its cost is counted as further instructions, whose number is limited.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickletools
import reprlib
from typing import Any, ClassVar, NoReturn

MOST_INSTRUCTIONS = 2_000_000  # a model of 200 tensors takes 6,000
LONGEST_NAME = 200  # of a function or a storage; those that torch.save writes have 40 letters at most

# The instructions by their names in pickletools. Literals push their argument.
LITERALS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
NO_OPERATION = ("PROTO", "FRAME")

ORDERED_DICT = "collections.OrderedDict"


class Refused(ValueError):
    """What a pickle would have done that no file of tensors does."""

    makes_object = False  # whether it would have made an object of a class: a whole model, for example


@dataclasses.dataclass(frozen=True)
class Name:
    """The name of a function or a class in a pickle. It is never looked up."""

    name: str

    @property
    def is_class(self) -> bool:
        """Whether it is written as classes are."""
        return self.name.rpartition(".")[2][:1].isupper()

    def __repr__(self) -> str:
        return self.name if self.name.isprintable() else repr(self.name)


@dataclasses.dataclass(frozen=True)
class Other:
    """What stands for a value that is of no use here: the pickle would make it by this call, and it is not made."""

    kind: str

    def __repr__(self) -> str:
        return f"{self.kind}(...)"


@dataclasses.dataclass(frozen=True, eq=False)
class Key:
    """A key of a dict that is no text. It is compared by identity, because a file may hold many keys of one hash."""

    value: Any

    def __repr__(self) -> str:
        return shown(self.value)


class PickleMachine:
    """Carries out the instructions of one pickle: a stack, marks on it, and a memo of values that are used again.

    A subclass adds names to `names` and `calls`, and says in `call`, `made` and `persistent` what they mean.

    Attributes
    ----------
    names : frozenset of str
        The names of functions and classes that a pickle may contain.
    calls : frozenset of str
        Those of them that it may call.

    Examples
    --------
    >>> import io, pickle
    >>> PickleMachine().run(io.BytesIO(pickle.dumps({"a": [1, 2]})))
    {'a': [1, 2]}
    """

    names: ClassVar[frozenset[str]] = frozenset({ORDERED_DICT})
    calls: ClassVar[frozenset[str]] = frozenset({ORDERED_DICT})

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[str, Any] = {}
        self.unknown: Name | None = None  # the first name that is not in `names`
        self.work = 0  # what takes time besides the instructions themselves, counted as so many more of them

    def run(self, stream: Any) -> Any:
        """Carry out the instructions of a pickle, and return the value that is left on the stack.

        Parameters
        ----------
        stream : binary file
            Where the pickle begins; afterwards, where it ended.

        Returns
        -------
        object
            A plain value, or what `call` and `persistent` return.

        Raises
        ------
        Refused
            If the pickle would import or call what is not known.
        ValueError
            If it is broken, holds other instructions than `torch.save` writes, or takes too much work.
        """
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count + self.work > MOST_INSTRUCTIONS:
                raise ValueError(f"expected at most {MOST_INSTRUCTIONS:,} instructions in a pickle, got more")
            if instruction.name == "STOP":
                break
            try:
                self.step(instruction.name, argument)
            except (IndexError, KeyError):
                raise ValueError(f"instruction {instruction.name} of the pickle takes what is not there") from None
        if self.unknown is not None:
            refuse("import", self.unknown)
        if len(self.stack) != 1 or self.marks:
            raise ValueError("expected one value in a pickle")
        return self.stack[0]

    # ---------------------------------------------------------------------------------- what a subclass gives a meaning

    def call(self, function: str, arguments: Any) -> Any:
        """Return what the call of a function means; it is one of `calls`, but not ``OrderedDict``."""
        refuse_arguments(function, arguments)

    def made(self, kind: Any, arguments: Any) -> Any:
        """Return what a new object of a class means."""
        refuse("make", kind, arguments)

    def persistent(self, description: Any) -> Any:
        """Return what a persistent id means."""
        raise ValueError(f"expected no persistent id in the pickle, got {shown(description)}")

    # ------------------------------------------------------------------------------------------------ the instructions

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name in LITERALS:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name not in NO_OPERATION and not (
            self.step_memo(name, argument) or self.step_container(name) or self.step_program(name, argument)
        ):
            raise ValueError(f"expected the instructions that torch.save writes in a pickle, got {name}")

    def step_memo(self, name: str, argument: Any) -> bool:
        """Carry out an instruction that marks, stores, repeats or drops a value; return whether it is one."""
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[_memo_key(argument)] = self.stack[-1]
            case "MEMOIZE":
                self.memo[_memo_key(len(self.memo))] = self.stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                self.stack.append(self.memo[_memo_key(argument)])
            case "MARK":
                self.marks.append(self.stack)
                self.stack = []
            case "POP":
                self.stack.pop()
            case _:
                return False
        return True

    def step_container(self, name: str) -> bool:
        """Carry out an instruction that makes or fills a tuple, dict or list; return whether it is one."""
        match name:
            case "TUPLE":
                self.push(tuple(self.since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = TUPLES[name]
                self.stack[-length:] = [tuple(self.stack[index] for index in range(-length, 0))]
            case "EMPTY_DICT":
                self.push({})
            case "DICT":
                items = self.since_mark()
                self.push(self.filled({}, items))
            case "SETITEM":
                value, key = self.stack.pop(), self.stack.pop()
                self.filled(self.stack[-1], [key, value])
            case "SETITEMS":
                items = self.since_mark()
                self.filled(self.stack[-1], items)
            case "EMPTY_LIST":
                self.push([])
            case "LIST":
                self.push(self.since_mark())
            case "APPEND":
                self.extend([self.stack.pop()])
            case "APPENDS":
                self.extend(self.since_mark())
            case _:
                return False
        return True

    def step_program(self, name: str, argument: Any) -> bool:
        """Carry out, or refuse, an instruction that names or calls something; return whether it is one."""
        match name:
            case "GLOBAL":
                self.push_name(*argument.split(" ", 1))
            case "STACK_GLOBAL":
                function, module = self.stack.pop(), self.stack.pop()
                self.push_name(module, function)
            case "BINPERSID":
                self.push(self.persistent(self.stack.pop()))
            case "REDUCE":
                arguments = self.stack.pop()
                self.push(self.reduced(self.stack.pop(), arguments))
            case "BUILD":
                state = self.stack.pop()
                # An OrderedDict's attributes, where PyTorch puts version numbers, are of no use here.
                if not isinstance(self.stack[-1], (dict, Other)):
                    refuse("set the state of", self.stack[-1], state)
            case "NEWOBJ":
                arguments = self.stack.pop()
                self.push(self.made(self.stack.pop(), arguments))
            case "NEWOBJ_EX":
                options, arguments = self.stack.pop(), self.stack.pop()
                refuse("make", self.stack.pop(), arguments, options)
            case "OBJ":
                kind, *values = self.since_mark() or [None]
                refuse("make", kind, tuple(values))
            case "INST":
                refuse("make", Name(argument.replace(" ", ".", 1)), tuple(self.since_mark()))
            case _:
                return False
        return True

    # ------------------------------------------------------------------------------------------------------- the stack

    def push(self, value: Any) -> None:
        """Push a value, onto the stack that a mark may have changed since."""
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """Take the values since the last mark from the stack."""
        values, self.stack = self.stack, self.marks.pop()
        return values

    def filled(self, target: Any, items: list[Any]) -> Any:
        """Put keys and values, in turn, into a dict, and return it."""
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("expected keys and values for a dictionary in the pickle")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # No tuples: one that holds another twice, which holds another twice, and so on, takes forever to hash.
            if key is not None and not isinstance(key, (str, bytes, int, float, Other)):
                raise ValueError(f"expected names and numbers as keys in the pickle, got {shown(key)}")
            if isinstance(key, str):
                self.work += len(key) // 64  # equal texts are compared letter by letter
                target[key] = value
            else:
                target[Key(key)] = value
        return target

    def extend(self, values: list[Any]) -> None:
        """Append values to the list on top of the stack."""
        if not isinstance(self.stack[-1], list):
            raise ValueError("expected a list to append to in the pickle")
        self.stack[-1].extend(values)

    def push_name(self, module: Any, name: Any) -> None:
        """Push the name of a function or class."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("expected the name of a function in the pickle")
        if len(module) + len(name) > LONGEST_NAME:  # of parts from the memo it can be put together again and again
            refuse("import", Name(f"{module[:LONGEST_NAME]}.{name[:LONGEST_NAME]}"))
        found = Name(f"{module}.{name}")
        if self.unknown is None and found.name not in self.names:
            self.unknown = found
        self.push(found)

    def reduced(self, function: Any, arguments: Any) -> Any:
        """Return what a call means; refuse one that is not known."""
        if not isinstance(function, Name) or function.name not in self.calls:
            refuse("call", function, arguments)
        if function.name != ORDERED_DICT:
            return self.call(function.name, arguments)
        match arguments:
            case ():
                return {}
            case ([*pairs],):  # from Python 2
                self.work += len(pairs)
                made: dict[Any, Any] = {}
                for pair in pairs:
                    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                        break
                    self.filled(made, list(pair))
                else:
                    return made
        refuse_arguments(function.name, arguments)


def _memo_key(index: int) -> str:
    """Return the key of a value in the memo: a text, because a file could choose many numbers of one hash."""
    if not 0 <= index < 2**32:
        raise ValueError(f"expected the index of a value in the pickle's memo, got {shown(index)}")
    return f"{index:d}"  # of True too, as which pickletools reads 01


# ---------------------------------------------------------------------------------------------------------- the errors


def refuse(verb: str, function: Any, *arguments: Any) -> NoReturn:
    """Refuse what a pickle would have done.

    Examples
    --------
    >>> refuse("call", Name("os.system"), ("rm -r *",))
    Traceback (most recent call last):
    ...
    nezha_np.weights.formats.pickle_machine.Refused: a pickle that would call os.system('rm -r *')
    """
    inputs = ""
    if verb in ("call", "make"):
        positional = arguments[0] if arguments and isinstance(arguments[0], tuple) else arguments[:1]
        inputs = f"({', '.join([shown(value) for value in positional[:6]])})"
    refused = Refused(f"a pickle that would {verb} {shown(function)}{inputs}")
    refused.makes_object = verb == "make" and isinstance(function, Name) and function.is_class
    raise refused


def refuse_arguments(function: str, arguments: Any) -> NoReturn:
    """Refuse a call of a known function with other arguments than `torch.save` writes."""
    raise ValueError(f"expected the arguments of {function} in the pickle, got {shown(arguments)}")


class _Short(reprlib.Repr):
    """Shows the beginning of a value, and looks at no more of it."""

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:  # that of reprlib sorts all keys
        if level <= 0:
            return "{...}"
        items = itertools.islice(value.items(), self.maxdict)
        parts = [f"{self.repr1(key, level - 1)}: {self.repr1(item, level - 1)}" for key, item in items]
        return f"{{{', '.join(parts + ['...'] * (len(value) > self.maxdict))}}}"

    def repr_bytes(self, value: bytes, level: int) -> str:
        return self.repr_instance(value[: self.maxother], level)

    def repr_int(self, value: int, level: int) -> str:
        return repr(value) if value.bit_length() <= 128 else "an enormous number"


def shown(value: Any) -> str:
    """Show a value of a file, which may be enormous or contain itself, in an error.

    Examples
    --------
    >>> shown(2**1000), shown([[[[1]]]])
    ('an enormous number', '[[[[...]]]]')
    """
    short = _Short()
    short.maxlevel, short.maxstring, short.maxother = 3, 80, 80
    text = short.repr(value)
    return text if len(text) <= 250 else f"{text[:250]}..."
