"""Compile the kernels' CUDA C as CuPy does, by NVRTC, for GPUs of four generations, and print what each kernel takes.

    pip install cuda-bindings nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cuda-crt
    python tools/compile_cuda.py

No GPU is needed. A warning is an error, and so is a register that is spilled to memory.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from cuda.bindings import nvrtc

SOURCE = Path(__file__).parents[1] / "nezha_np" / "kernels" / "cuda.cu"
NUMBERS = ("float", "__half")
GPUS = {"sm_75": "T4", "sm_80": "A100", "sm_90": "H100, H200", "sm_100": "B200"}
KERNEL = re.compile(r'^extern "C" __global__ void (\w+)', re.MULTILINE)
TAKEN = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Taken(NamedTuple):
    """What a compiled kernel takes of the GPU."""

    name: str
    registers: int
    spilled: int  # bytes


def headers() -> list[str]:
    """List the folders of CUDA's headers, which are packages of PyPI too."""
    spec = find_spec("nvidia")
    found = [folder for place in spec.submodule_search_locations or () for folder in Path(place).glob("*/include")]
    if not any((folder / "cuda_fp16.h").exists() for folder in found):
        raise SystemExit("cuda_fp16.h: expected it in the package nvidia-cuda-runtime, which is not installed")
    return [f"--include-path={folder}" for folder in found]


def compile_for(gpu: str, number: str) -> str:
    """Compile the source down to the code of a GPU; return what the compiler said."""
    error, program = nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], [])
    options = [f"--gpu-architecture={gpu}", "-std=c++17", f"-DNUMBER={number}", *headers(), "--ptxas-options=-v"]
    options = [option.encode() for option in options]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    said = log.rstrip(b"\0 ").decode()
    nvrtc.nvrtcDestroyProgram(program)
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS or "warning" in said:
        raise SystemExit(f"{gpu}, {number}:\n{said}")
    return said


def kernels_in(said: str) -> Iterator[Taken]:
    """Read what the assembler says of each kernel."""
    for found in TAKEN.finditer(said):
        yield Taken(found["name"], int(found["registers"]), int(found["stores"]) + int(found["loads"]))


def main() -> int:
    names = KERNEL.findall(SOURCE.read_text(encoding="utf-8"))
    columns = [(gpu, number) for gpu in GPUS for number in NUMBERS]
    compiled = {column: {kernel.name: kernel for kernel in kernels_in(compile_for(*column))} for column in columns}
    print(f"NVRTC {'.'.join(map(str, nvrtc.nvrtcVersion()[1:]))}; registers of a thread\n")
    widest = max(map(len, names))
    print(" " * widest + "".join(f"{gpu} {number.strip('_')}".rjust(14) for gpu, number in columns))
    for name in names:
        print(name.ljust(widest) + "".join(f"{compiled[column][name].registers}".rjust(14) for column in columns))
    spilled = [(*column, *kernel) for column in columns for kernel in compiled[column].values() if kernel.spilled]
    for gpu, number, name, _, size in spilled:
        print(f"{gpu}, {number}: {name} spills {size} bytes of registers to memory")
    if not spilled:
        print("\nno kernel spills registers to memory")
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main())
