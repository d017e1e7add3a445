"""What the source promises about itself: read from its syntax tree and its docstrings."""

import ast
import doctest
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nezha_np as nz

PACKAGE = Path(nz.__file__).parent
REPOSITORY = Path(__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(PACKAGE)], "nezha_np."))
# The definitions: what runs on every array library.
DEFINITIONS = [
    *sorted((PACKAGE / "layers").glob("*.py")),
    *(PACKAGE / "families" / f"{name}.py" for name in ("shared", "nezha", "bert", "convbert")),
    *(PACKAGE / "model" / f"{name}.py" for name in ("model", "heads")),
]

# What the examples of some modules need besides the dependencies.
NEEDED = {"nezha_np.kernels.cu": "cupy", "nezha_np.files.parquet": "pyarrow"}

# Imports point downwards only: a room may import what stands before it, and what stands in it.
ORDER = (
    "threads",
    "narrow",
    "arrays",
    "randomness",
    "checks",
    "signals",
    "mechanism",
    "layers",
    "files",
    "families",
    "weights",
    "model",
    "inside",
    "text",
    "training",
    "jobs",
    "pages",
    "explanation",
    "oracle",
    "commands",
    "cli",
    "__main__",
)


def names_in(module):
    """List the functions and classes that a module defines, layers and methods included."""
    for name, value in vars(module).items():
        plain = inspect.unwrap(value) if callable(value) else value
        if getattr(plain, "__module__", None) != module.__name__ or not (
            inspect.isfunction(plain) or inspect.isclass(plain)
        ):
            continue
        yield name, value
        if inspect.isclass(plain):
            for method, function in vars(plain).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("name", ["nezha_np", *MODULES])
def test_every_example_in_a_docstring_runs(name):
    for beginning, needed in NEEDED.items():
        if name.startswith(beginning):
            pytest.importorskip(needed, reason=f"{needed} is not installed")
    module = import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    objects = [(name, module), *names_in(module)]
    for title, value in objects:
        test = doctest.DocTestParser().get_doctest(value.__doc__ or "", dict(vars(module)), title, name, 0)
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


def test_every_public_function_and_layer_has_an_example():
    without = []
    for name in nz.__all__:
        if ">>>" not in (getattr(nz, name).__doc__ or ""):
            without.append(name)
    for path in sorted((PACKAGE / "layers").glob("*.py")):
        module = import_module(f"nezha_np.layers.{path.stem}")
        for name, value in names_in(module):
            if not name.startswith("_") and not name.endswith("_gradient") and ">>>" not in (value.__doc__ or ""):
                without.append(f"{path.stem}.{name}")
    assert without == ["__init__.layers"] or without == []


# What these files define is documented in full.
DOCUMENTED = [
    *(path for room in ("layers", "mechanism", "model") for path in sorted((PACKAGE / room).glob("*.py"))),
    *(PACKAGE / f"{name}.py" for name in ("arrays", "checks", "randomness")),
]


def public_functions(tree):
    """List the public functions of a file, and the public methods of its public classes, without properties."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            decorators = {decorator.id for decorator in node.decorator_list if isinstance(decorator, ast.Name)}
            if "property" not in decorators:
                yield node


def section_of(docstring, *titles):
    """Return the names that stand in a section of a numpydoc docstring, each up to its type; None without one."""
    for title in titles:
        found = re.search(rf"^{title}\n-+\n(.*?)(?=\n\n\w+\n-+\n|\Z)", docstring, flags=re.MULTILINE | re.DOTALL)
        if found:
            lines = [line.partition(" : ")[0] for line in found[1].splitlines() if line[:1].strip()]
            return {name.strip("* ") for line in lines for name in line.split(",")}
    return None


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_docstring_names_every_parameter_what_is_returned_and_what_is_raised(path):
    for node in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
        docstring = ast.get_docstring(node) or ""
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        parameters = {argument.arg for argument in every if argument is not None} - {"self"}
        named = section_of(docstring, "Parameters") or set()
        # `forward` names the inputs that ``**inputs`` stands for.
        assert named >= parameters - {"inputs"}, f"{node.name}: {parameters - named}"
        assert named <= parameters or "inputs" in parameters, f"{node.name}: {named - parameters}"
        if not (isinstance(node.returns, ast.Constant) and node.returns.value is None):
            assert section_of(docstring, "Returns", "Yields"), f"{node.name}: Returns"
        if any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
            assert section_of(docstring, "Raises"), f"{node.name}: Raises"


TYPED = """
import numpy as np

import nezha_np as nz

weights = nz.load()
reveal_type(nz.forward(weights, [[1]], attention_mask=[[1]]))
reveal_type(nz.forward(weights, [[1]]).last_hidden_state.shape)
reveal_type(nz.value_and_grad(nz.question_answering)(weights, [[1]], start_positions=[0], end_positions=[0]))
with nz.trace() as t:
    nz.masked_lm({"a": np.zeros(1)}, [[1]], config=weights.config)
reveal_type(t["pooler"] + 1.0)
nz.value_and_grad(nz.forward)
nz.masked_lm(weights, [[1]], attention_maks=[[1]])
"""


def test_an_editor_knows_what_the_public_functions_take_and_return(tmp_path):
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    (tmp_path / "typed.py").write_text(TYPED, encoding="utf-8")
    cache = f"--cache-dir={tmp_path / 'cache'}"
    out, problems, _ = api.run([cache, "--follow-imports=silent", "--hide-error-context", str(tmp_path / "typed.py")])
    assert not problems
    said = [line.partition(": ")[2] for line in out.splitlines() if "typed.py:" in line]
    known = [re.sub(r"\b(\w+\.)+", "", line.partition(" is ")[2]) for line in said if "Revealed" in line]
    assert known == [
        '"ModelOutput"',
        '"tuple[int, ...]"',
        '"tuple[QuestionAnsweringOutput, dict[str, Array]]"',
        '"Array"',
    ]
    errors = [line for line in said if line.startswith("error")]
    assert len(errors) == 2 and "ModelOutput" in errors[0] and "attention_maks" in errors[1], out


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_definitions_never_write_into_an_array_and_never_name_an_array_library(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AugAssign) or isinstance(node.op, ast.BitOr), f"line {node.lineno}: in place"
        targets = node.targets if isinstance(node, ast.Assign) else []
        for target in targets:
            if isinstance(target, ast.Subscript):  # a dict of arguments may be written to, an array never
                assert isinstance(target.value, ast.Name) and target.value.id == "inputs", (
                    f"line {target.lineno}: writes"
                )
        if isinstance(node, ast.keyword):
            assert node.arg != "out", f"line {node.value.lineno}: out="
        if isinstance(node, (ast.Import, ast.ImportFrom)) and path.stem not in ("relative_position",):
            imported = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not imported & {"numpy", "cupy", "torch", "jax"}, f"line {node.lineno}: names an array library"


def test_numpy_is_used_in_relative_position_for_the_table_on_the_host_alone():
    tree = ast.parse((PACKAGE / "layers" / "relative_position.py").read_text(encoding="utf-8"))
    users = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id == "np"
    }
    assert users == {"relative_position_table"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ("__init__", "kernels"):
        return  # the package itself stands above everything; kernels are looked up by name
    allowed = {*ORDER[: ORDER.index(room)], room}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nezha_np."):
            assert node.module.split(".")[1] in allowed, f"line {node.lineno}: {node.module}"


def test_a_layers_gradient_stands_right_below_its_definition_or_its_inverse():
    for path in sorted((PACKAGE / "layers").glob("*.py")):
        names = [
            node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)
        ]
        names = [name for name in names if not name.startswith("_")]
        for name in names:
            if name.endswith("_gradient"):
                assert 0 < names.index(name) - names.index(name.removesuffix("_gradient")) <= 2, f"{path.stem}: {name}"


def test_importing_the_package_pulls_in_no_heavy_library():
    code = "import sys, nezha_np; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    heavy = {"torch", "scipy", "transformers", "tokenizers", "safetensors", "cupy", "jax", "array_api_compat"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "RELEASING.md"])
def test_every_path_that_a_page_for_contributors_names_exists(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    spans = [*re.findall(r"`([^`\s]+)`", text), *re.findall(r"\]\(([^):]+)\)", text)]
    rooms = ("nezha_np/", "tests/", "tools/", "docs/", "benchmarks/", ".ci/")
    paths = {span for span in spans if span.startswith(rooms) or span.endswith((".md", ".cff", ".toml"))}
    assert paths and not [path for path in sorted(paths) if not (REPOSITORY / path).exists()]


def test_pre_commit_runs_the_checks_of_ci():
    text = (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    entries = re.findall(r"^ +entry: (.*)$", text, flags=re.MULTILINE)
    assert entries == ["ruff check .", "ruff format .", "mypy"]
    assert text.count("\n        language: system\n") == len(entries)  # of the versions that pyproject.toml asks for
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").replace(" --check", "")
    assert all(f"\n    {entry}\n" in ci for entry in entries)


# Recording a bundle runs the pass 25 times, for its tolerances.
@pytest.mark.parametrize("until", ["oracle.record", pytest.param(None, id="the end", marks=pytest.mark.exhaustive)])
def test_every_python_block_of_the_readme_runs(until):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    if until:
        (stop,) = (number for number, block in enumerate(blocks) if until in block)
        blocks = blocks[:stop]
    assert blocks
    exec(compile("\n".join(blocks), "README.md", "exec"), {})


def test_the_readme_shows_what_its_first_command_prints(capsys):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL).group(1)
    import nezha_np.cli

    assert nezha_np.cli.main(["fill-mask", "房间很[MASK]净。"]) == 0
    assert capsys.readouterr().out == shown


def test_text_files_name_their_encoding_and_written_ones_their_line_ends():
    wrong = []
    for path in [*PACKAGE.rglob("*.py"), REPOSITORY / "pytest_nezha_np.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(attr="read_text" | "write_text" as name)):
                    mode = name[0]
                case ast.Call(func=ast.Attribute(value=ast.Name(id="os"))):
                    continue
                case ast.Call(func=ast.Name(id="open") | ast.Attribute(attr="open")):
                    mode = next((part.value for part in node.args if isinstance(part, ast.Constant)), "r")
                case _:
                    continue
            needed = set() if "b" in mode else {"encoding"} if mode[0] == "r" else {"encoding", "newline"}
            if needed - {keyword.arg for keyword in node.keywords}:
                wrong.append(f"{path.name}, line {node.lineno}: expected {sorted(needed)}")
    assert not wrong


def test_the_commands_of_the_pages_are_typed_alike_in_every_shell():
    seen, wrong = 0, []
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("notebooks/source/*.md")]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        lines = [
            line for block in re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()
        ]
        lines += re.findall(r"`((?:pip|python|pytest|nezha-np) [^`]+)`", text)
        for line in lines:
            if not re.match(r"(pip|python|pytest|ruff|nezha-np) ", line):
                continue
            seen += 1
            bare = re.sub(r'"[^"]*"', "", line.partition(" #")[0])
            if re.search(r"['\\$;|<>^%]|^\w+=", bare):  # cmd does not know single quotes, PowerShell recodes | and >
                wrong.append(f"{page.name}: {line}")
    assert seen > 50 and not wrong
