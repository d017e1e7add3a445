"""The pytest plugin, as other projects' tests use it: each test below runs pytest on one of them."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import nezha_np as nz

pytest_plugins = "pytester"
BESIDE = Path(nz.__file__).parents[1]  # where the plugin is, installed or not
REPOSITORY = Path(__file__).parents[1]

START = """
import numpy as np
import nezha_np as nz

CONFIG = nz.NezhaConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12,
    max_position_embeddings=16, max_relative_position=3,
)
IDS = [[2, 5, 6, 3], [2, 7, 3, 0]]
calls = []

def lively(head=None):
    return nz.Weights({name: 12 * array for name, array in nz.init(CONFIG, head=head).items()}, CONFIG)

def port(config=CONFIG, weights=None, head=nz.forward):
    def run(**inputs):
        calls.append(inputs)
        with nz.trace() as t:
            head((weights or nz.init(CONFIG)).to(dtype="float32"), **inputs, config=config)
        return t
    return run
"""


@pytest.fixture
def run_pytest(pytester, monkeypatch):
    """Run pytest with the plugin on a test module, in a process of its own."""

    def run(module, *options):
        monkeypatch.setenv("PYTHONPATH", str(BESIDE))
        pytester.makepyfile(test_port=START + module)
        return pytester.runpytest_subprocess("-p", "pytest_nezha_np", *options)

    return run


def kept(pytester):
    return sorted((pytester.path / ".pytest_cache" / "d" / "nezha_golden").glob("*.safetensors"))


PASSING = """
def test_port(nezha_golden):
    comparison = nezha_golden(port(), CONFIG, IDS, attention_mask=[[1, 1, 1, 1], [1, 1, 1, 0]])
    assert comparison.dtype == "float32" and "encoder.layer.0.output" in [row.name for row in comparison.rows]
    (inputs,) = calls
    assert isinstance(inputs["input_ids"], np.ndarray) and inputs["attention_mask"].shape == (2, 4)
"""


@pytest.mark.exhaustive
def test_a_right_port_passes_and_the_recording_is_kept_for_the_next_run(run_pytest, pytester):
    run_pytest(PASSING).assert_outcomes(passed=1)
    (file,) = kept(pytester)
    written = file.stat()
    run_pytest(PASSING).assert_outcomes(passed=1)
    assert kept(pytester) == [file] and file.stat().st_mtime_ns == written.st_mtime_ns
    assert nz.oracle.load(file).inputs["input_ids"].tolist() == [[2, 5, 6, 3], [2, 7, 3, 0]]


@pytest.mark.exhaustive
def test_a_broken_recording_in_the_cache_is_recorded_anew(run_pytest, pytester):
    run_pytest(
        """
def test_port(nezha_golden, request):
    nezha_golden(port(), CONFIG, IDS)
    (file,) = request.config.cache.mkdir("nezha_golden").iterdir()
    whole = file.read_bytes()
    for broken in (b"", whole[:40], whole[: len(whole) // 2], b"\\x02" + bytes(7) + b"{}"):
        file.unlink()  # the arrays above are a mapping of it
        file.write_bytes(broken)
        nezha_golden(port(), CONFIG, IDS)
        assert file.stat().st_size == len(whole)
"""
    ).assert_outcomes(passed=1)
    (file,) = kept(pytester)
    assert nz.oracle.load(file).head == "forward"


@pytest.mark.exhaustive
def test_each_content_has_a_recording_of_its_own(run_pytest, pytester):
    run_pytest(
        """
def test_port(nezha_golden):
    weights = nz.init(CONFIG)
    for given in (CONFIG, CONFIG.replace(hidden_act="relu"), weights, nz.init(CONFIG, seed=1)):
        nezha_golden(lambda **inputs: {"embeddings": np.zeros((2, 4, 8))}, given, IDS, tolerance=9.0)
    nezha_golden({"embeddings": np.zeros((1, 1, 8))}, CONFIG, [[2]], tolerance=9.0)
    nezha_golden({"embeddings": np.zeros((1, 1, 8))}, CONFIG, np.array([[2]]), token_type_ids=[[1]], tolerance=9.0)
    nezha_golden({"embeddings": np.zeros((1, 1, 8))}, CONFIG, [[2]], seed=1, tolerance=9.0)
    nezha_golden({"embeddings": np.zeros((1, 1, 8))}, CONFIG, [[2]], head="masked_lm", tolerance=9.0)
    nezha_golden({"embeddings": np.zeros((1, 1, 8))}, CONFIG, [[2]], head="masked_lm", tolerance=9.0)
"""
    ).assert_outcomes(passed=1)
    assert len(kept(pytester)) == 8


BROKEN = """
def test_port(nezha_golden):
    weights = lively("masked_lm")
    broken = port(CONFIG.replace(hidden_act="gelu_new"), weights, nz.masked_lm)
    nezha_golden(broken, weights, IDS, head="masked_lm", labels=IDS)
"""


def test_a_broken_port_fails_with_the_first_difference_and_the_doctors_word(run_pytest):
    result = run_pytest(BROKEN)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "* arrays are beyond the tolerances of float32",
            "the first, in the order *: encoder.layer.0.intermediate.intermediate_act_fn differs *",
            "the doctor: encoder.layer.0.intermediate.intermediate_act_fn is the first that does not follow *",
            "mistake: tanh GELU for erf",
        ],
        consecutive=False,
    )
    assert "Traceback" not in result.stdout.str() and "pytest_nezha_np.py" not in result.stdout.str()


@pytest.mark.exhaustive
def test_names_axes_and_dtype_are_those_of_compare(run_pytest):
    run_pytest(
        """
def test_port(nezha_golden):
    def theirs(**inputs):
        t = port()(**inputs)
        return {"blocks.0.q": t["encoder.layer.0.attention.self.q"].transpose(0, 2, 1, 3).astype("float64")}
    rename = {"blocks.*": "encoder.layer.*.attention.self"}
    assert nezha_golden(theirs, CONFIG, IDS, rename=rename, transposed=True, dtype="float32").dtype == "float32"
"""
    ).assert_outcomes(passed=1)


@pytest.mark.exhaustive
def test_standard_bundles_files_of_bundles_checkpoints_and_mappings_are_taken(run_pytest, pytester):
    run_pytest(
        """
def test_port(nezha_golden, tmp_path):
    name = nz.oracle.standard.names()[0]
    bundle = nz.oracle.record_standard(name)
    bundle.save(tmp_path / "bundle.safetensors")
    for given in (name, name, bundle, tmp_path / "bundle.safetensors", str(tmp_path / "bundle.safetensors")):
        assert nezha_golden(bundle.trace, given)
    weights = nz.init(CONFIG)
    weights.save(tmp_path / "model")
    for given in (weights, tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        assert nezha_golden(port(), given, IDS)
    assert nezha_golden(port(nz.load().config, nz.load()), None, IDS)
"""
    ).assert_outcomes(passed=1)
    assert len(kept(pytester)) == 4  # the standard one, the weights, their checkpoint, and the shipped one


@pytest.mark.exhaustive
def test_the_doctor_has_the_checkpoint_of_a_recording(run_pytest):
    result = run_pytest(
        """
def test_port(nezha_golden, tmp_path):
    weights = lively()
    weights.save(tmp_path / "model")
    nezha_golden(port(CONFIG.replace(hidden_act="gelu_new"), weights), tmp_path / "model", IDS)

def test_bundle_from_elsewhere(nezha_golden, tmp_path):
    weights = lively()
    weights.save(tmp_path / "model")
    bundle = nz.oracle.record(tmp_path / "model", IDS)
    nezha_golden({"embeddings": np.zeros((2, 4, 8))}, bundle)
"""
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["mistake: tanh GELU for erf", "the doctor cannot say why: ValueError: checkpoint: expected *"]
    )


def test_quick_tolerances_are_taken_and_have_a_recording_of_their_own(run_pytest, pytester):
    run_pytest(
        """
def test_port(nezha_golden):
    assert nezha_golden(port(), CONFIG, IDS)
    assert nezha_golden(port(), CONFIG, IDS, tolerances="quick")
    assert nezha_golden(port(), CONFIG, IDS, tolerances=None, tolerance=1e-5)
"""
    ).assert_outcomes(passed=1)
    assert {nz.oracle.load(file).tolerances_by for file in kept(pytester)} == {"measured", "quick", None}


BAD_INPUT = {
    "nezha_golden(port(), CONFIG, [[99]])": "ValueError: input_ids: expected values from 0 to 19, got 99",
    "nezha_golden(port(), CONFIG, IDS, head='x')": "ValueError: head: expected one of forward, *got 'x'",
    "nezha_golden(port(), 'nowhere', IDS)": "FileNotFoundError: *nowhere*",
    "nezha_golden(port(), 'nezha-maskedlm')": "FileNotFoundError: weights: *nezha-masked_lm*",
    "nezha_golden(port(), 'nezha-masked_lm', seed=5)": "TypeError: seed: expected none with a bundle, *",
    "nezha_golden(port(), 'nezha-masked_lm', tolerances='quick')": "TypeError: tolerances: expected none with a *",
    "nezha_golden(port(), 3, IDS)": "TypeError: weights: expected *got int",
    "nezha_golden(None, CONFIG, IDS)": "TypeError: theirs: expected a mapping of arrays or a path, got NoneType",
    "nezha_golden(len, CONFIG, IDS)": "TypeError: len() takes no keyword arguments",
    "nezha_golden({'x': np.zeros(1)}, CONFIG, IDS)": "ValueError: theirs: expected some of the bundle's names *",
    "nezha_golden({}, nz.oracle.record(CONFIG, IDS), IDS)":
        "TypeError: input_ids: expected none with a bundle, which has its own",
}  # fmt: skip


def test_training_steps_are_checked_by_a_function_of_the_bundle(run_pytest, pytester):
    result = run_pytest(
        """
from nezha_np.training import lamb

RECIPE = {"head": "masked_lm", "labels": [[-100, 5, -100, -100]] * 2, "tolerances": "quick", "step": lamb, "steps": 2}

def steps(bundle):
    return {f"steps/{name}": array for name, array in bundle.steps.items()}

def wrong_steps(bundle):
    return {name: array + name.startswith("steps/2/weights/") for name, array in steps(bundle).items()}

def test_right(nezha_golden):
    nezha_golden(steps, CONFIG, IDS, learning_rate=lambda number: 1e-3 * number, **RECIPE)

def test_wrong(nezha_golden):
    nezha_golden(wrong_steps, CONFIG, IDS, learning_rate=lambda number: 1e-3 * number, **RECIPE)

def test_another_schedule(nezha_golden):
    nezha_golden(steps, CONFIG, IDS, learning_rate=lambda number: 1e-4 * number, **RECIPE)
"""
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*steps/2/weights/*"])
    assert len(list(kept(pytester))) == 2  # one for each schedule


def test_bad_input_is_an_error_that_names_the_argument(run_pytest):
    calls = [f"def test_{number}(nezha_golden):\n    {call}\n" for number, call in enumerate(BAD_INPUT)]
    result = run_pytest("\n".join(calls), "--tb=short")
    result.assert_outcomes(failed=len(BAD_INPUT))
    result.stdout.fnmatch_lines([f"E * {message}" for message in BAD_INPUT.values()])


@pytest.mark.exhaustive
def test_without_pytests_cache_each_run_records(run_pytest, pytester):
    run_pytest(PASSING, "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert kept(pytester) == []


@pytest.mark.exhaustive
def test_where_the_cache_cannot_be_written_each_run_records(run_pytest, pytester):
    (pytester.path / "file").write_text("where the cache is to be")
    run_pytest(PASSING, "-o", "cache_dir=file").assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_but_pytest_until_its_fixture_is_used(run_pytest):
    code = (
        f"import sys; sys.path.insert(0, {str(BESIDE)!r}); import pytest; before = set(sys.modules)\n"
        "import pytest_nezha_np; print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["pytest_nezha_np"]


def test_a_project_that_does_not_use_the_fixture_never_imports_numpy(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(BESIDE))
    pytester.makepyfile(
        "import sys\ndef test_other():\n    assert not {'numpy', 'nezha_np', 'torch'} & set(sys.modules)"
    )
    plain = ("-p", "no:hypothesispytest")  # which loads NumPy where both are installed
    pytester.runpytest_subprocess("-p", "pytest_nezha_np", *plain).assert_outcomes(passed=1)


def test_the_wheel_has_the_plugin_and_its_entry_point():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"pytest_nezha_np": "pytest_nezha_np"}
    assert "pytest_nezha_np.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert (REPOSITORY / "pytest_nezha_np.py").is_file()


@pytest.mark.exhaustive
def test_a_port_that_is_a_process_of_its_own_gets_the_bundles_file_and_writes_one(run_pytest, pytester):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++ to compile docs/port.cpp with")
    program = pytester.path / "port"
    subprocess.run([compiler, "-O2", "-std=c++17", "-o", program, REPOSITORY / "docs" / "port.cpp"], check=True)
    run_pytest(
        f"""
import shutil
import subprocess

def cpp(golden, theirs):
    subprocess.run([{str(program)!r}, golden, theirs], check=True)

def test_right(nezha_golden):
    comparison = nezha_golden(cpp, lively(), IDS, token_type_ids=[[0, 0, 1, 1], [0, 1, 1, 0]], files=True)
    assert [row.name for row in comparison.rows] == ["embeddings.sum", "embeddings.LayerNorm"]

def test_wrong(nezha_golden):
    config = CONFIG.replace(layer_norm_eps=0.01)
    nezha_golden(cpp, nz.Weights(dict(lively()), config), IDS, token_type_ids=[[0, 0, 1, 1], [0, 1, 1, 0]], files=True)
"""
    ).assert_outcomes(passed=1, failed=1)
    (of_right, _) = kept(pytester)
    assert nz.oracle.load(of_right).head == "forward"


FULL = """
import resource
def test_port(nezha_golden):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))  # a write then fails as it does on a full disk
    try:
        nezha_golden({"embeddings": np.zeros((1, 1, 8))}, CONFIG, [[2]], tolerances="quick", tolerance=9.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
"""


def test_a_full_disk_under_the_cache_fails_no_test(run_pytest, pytester):
    pytest.importorskip("resource", reason="this system does not limit the size of files")
    run_pytest(FULL).assert_outcomes(passed=1)
    assert kept(pytester) == []
