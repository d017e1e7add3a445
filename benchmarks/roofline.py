"""Predict how long a layer of NEZHA takes on a GPU, from the bytes and the operations of each launch. No GPU is needed.

python benchmarks/roofline.py [--shapes 1x128 32x128 8x512] [--gpus H100 H200] [--microseconds 5] [--json PATH]

A launch takes the longer of two times: bytes / bandwidth, operations / rate (Williams, Waterman & Patterson 2009,
"Roofline: an insightful visual performance model", https://doi.org/10.1145/1498765.1498785), if nothing of it is in
cache already and all of the GPU works on it. So it is a bound from below, for our launches and the reference's in the
same way. "host" is what queueing takes at so many microseconds a launch: the longer of the two decides.

Ours are listed here, as `nezha_np/kernels/cupy_attention.py` and `cupy_rows.py` queue them; a test holds them to the
kernels. The reference's are what PyTorch dispatches to a device in eager mode, counted on its meta device, which has
shapes and no numbers; views are no launches. `benchmarks/gpu.py` measures both on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from machine import add_json_option, report, table

import nezha_np as nz

# Of the data sheets: bytes a second, and operations a second of products by dtype (float32 without TF32; float16 by
# tensor cores, dense) and of everything else.
GPUS = {
    "H100": {"bandwidth": 3.35e12, "float32": 67e12, "float16": 989e12, "elementwise": 67e12},
    "H200": {"bandwidth": 4.8e12, "float32": 67e12, "float16": 989e12, "elementwise": 67e12},
}
BYTES = {"float32": 4, "float16": 2}
SHAPES = ("1x128", "32x128", "8x512")


class Launch(NamedTuple):
    """One launch: how many operations it makes, and how many numbers it reads and writes."""

    name: str
    operations: int
    numbers: int
    product: bool


def product(name: str, rows: int, inner: int, columns: int, batch: int = 1) -> Launch:
    """A product of (rows, inner) and (inner, columns), a number of times."""
    numbers = batch * (rows * inner + inner * columns + rows * columns)
    return Launch(name, 2 * batch * rows * inner * columns, numbers, True)


def elementwise(name: str, reads: int, writes: int) -> Launch:
    """A launch that takes a few operations for each number."""
    return Launch(name, 4 * (reads + writes), reads + writes, False)


def our_launches(config: nz.NezhaConfig, batch: int, length: int) -> list[Launch]:
    """List the launches of one layer, as the kernels for CuPy queue them."""
    tokens, size, wide = batch * length, config.hidden_size, config.intermediate_size
    heads, rows = config.num_attention_heads, 2 * config.max_relative_position + 1
    head, scores = config.head_size, batch * heads * length * length
    per_head = batch * heads * length
    return [
        *(product(name, tokens, size, size) for name in ("query", "key", "value")),
        *(elementwise(f"split_heads of {name}", tokens * size, tokens * size) for name in ("q", "k", "v")),
        product("content scores", length, head, length, batch * heads),
        product("position scores", per_head, head, rows),
        elementwise("softmax", scores + per_head * rows + tokens, scores + per_head * rows),
        product("content context", length, length, head, batch * heads),
        product("position context", per_head, rows, head),
        elementwise("merge_heads", 2 * tokens * size, tokens * size),
        product("attention.output.dense", tokens, size, size),
        elementwise("normalise", 2 * tokens * size, tokens * size),
        product("intermediate.dense", tokens, size, wide),
        elementwise("bias_gelu", tokens * wide, tokens * wide),
        product("output.dense", tokens, wide, size),
        elementwise("normalise", 2 * tokens * size, tokens * size),
    ]


def their_launches(config: nz.NezhaConfig, batch: int, length: int) -> list[Launch]:
    """List what PyTorch dispatches for one layer of the reference."""
    import torch
    import transformers
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    found: list[Launch] = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if not is_view(func):
                given = sum(tensor.numel() for tensor in tensors(args))
                made = sum(tensor.numel() for tensor in tensors([out]))
                count = flop_registry.get(func.overloadpacket)
                operations = 4 * (given + made) if count is None else count(*args, out_val=out)
                found.append(Launch(func.overloadpacket.__name__, operations, given + made, count is not None))
            return out

    def is_view(func: Any) -> bool:
        aliases = (one.alias_info for one in func._schema.returns)
        return func is torch.ops.aten._unsafe_view.default or any(one and not one.is_write for one in aliases)

    def tensors(values: Any) -> Iterator[Any]:
        for value in values:
            if isinstance(value, torch.Tensor):
                yield value
            elif isinstance(value, list | tuple):
                yield from tensors(value)

    with torch.device("meta"), torch.no_grad():
        theirs = transformers.NezhaConfig(**config.replace(num_hidden_layers=1).to_dict())
        layer = transformers.models.nezha.modeling_nezha.NezhaLayer(theirs).eval()
        x = torch.empty(batch, length, config.hidden_size)
        mask = torch.empty(batch, 1, 1, length)
        with Counting():
            layer(x, mask)
    return found


def seconds(launches: Sequence[Launch], gpu: str, dtype: str) -> float:
    """Add up how long the launches take at least."""
    rates = GPUS[gpu]
    return sum(
        max(
            launch.numbers * BYTES[dtype] / rates["bandwidth"],
            launch.operations / rates[dtype if launch.product else "elementwise"],
        )
        for launch in launches
    )


def measure(shapes: Sequence[str], gpus: Sequence[str], microseconds: float) -> list[dict[str, Any]]:
    config, results = nz.NezhaConfig(vocab_size=21128), []
    for shape in shapes:
        batch, length = map(int, shape.split("x"))
        both = {"nezha_np": our_launches(config, batch, length), "reference": their_launches(config, batch, length)}
        for who, launches in both.items():
            for dtype, size in BYTES.items():
                found = {
                    "shape": shape,
                    "who": who,
                    "dtype": dtype,
                    "launches": len(launches),
                    "megabytes": sum(launch.numbers for launch in launches) * size / 1e6,
                    "gigaoperations": sum(launch.operations for launch in launches) / 1e9,
                    "host_microseconds": len(launches) * microseconds,
                }
                found["microseconds"] = {gpu: 1e6 * seconds(launches, gpu, dtype) for gpu in gpus}
                results.append(found)
    return results


def rows(results: Sequence[dict[str, Any]], gpus: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows of the table."""
    headings = ["shape", "", "dtype", "launches", "MB", "10⁹ operations", "host", *gpus]
    return headings, [
        [
            one["shape"],
            one["who"],
            one["dtype"],
            str(one["launches"]),
            f"{one['megabytes']:.1f}",
            f"{one['gigaoperations']:.1f}",
            f"{one['host_microseconds']:.0f} µs",
            *(f"{one['microseconds'][gpu]:.0f} µs" for gpu in gpus),
        ]
        for one in results
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="BATCHxLENGTH")
    parser.add_argument("--gpus", nargs="+", choices=GPUS, default=[*GPUS])
    parser.add_argument("--microseconds", type=float, default=5.0, help="to queue a launch (5)")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    results = measure(options.shapes, options.gpus, options.microseconds)
    print("one layer of NEZHA, base size\n")
    print(table(*rows(results, options.gpus)))
    report(options.json, "roofline", {"microseconds": options.microseconds, "gpus": GPUS}, results, [])


if __name__ == "__main__":
    main()
