"""Tensors that no part of the model computes with, and names that wrappers of its parts have changed."""

from __future__ import annotations

import numpy as np
import pytest
from test_checkpoint import CONFIGS, assert_same, filled, put, put_torch

import nezha_np as nz
from nezha_np.cli import main

QUERY = "encoder.layer.0.attention.self.query."
OTHERS = {
    "LoRA": f"{QUERY}lora_A.default.weight",
    "an adapter": "encoder.layer.0.output.adapters.task.adapter_down.0.weight",
    "embeddings of another model": "embeddings.task_type_embeddings.weight",
    "a norm after the last layer": "encoder.LayerNorm.weight",
    "a further layer": "encoder.layer.9.output.dense.bias",
}


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("name", OTHERS.values(), ids=OTHERS)
def test_a_tensor_that_the_model_was_trained_with_is_not_left_out_in_silence(tmp_path, capsys, family, name):
    config, tensors = CONFIGS[family], filled(CONFIGS[family])
    folder = put(tmp_path, tensors | {name: np.ones(3, "float32")}, config)
    with pytest.warns(UserWarning, match=rf": nothing is computed with {name}, which .* merge adapters") as caught:
        weights = nz.load(folder)
    assert caught[0].filename == __file__ and str(folder) in str(caught[0].message)
    assert_same(
        {key: weights[key] for key in tensors if key in weights}, {key: tensors[key] for key in weights if key != name}
    )
    assert main(["inspect", str(folder)]) == 0
    assert f"\nnothing is computed with {name}, " in capsys.readouterr().out


def test_code_that_a_checkpoint_brings_for_its_model_is_named_and_not_run(tmp_path, capsys):
    config = CONFIGS["bert"]
    code = {"AutoConfig": "configuration_mine.MyConfig", "AutoModelForMaskedLM": "modeling_mine.My\x1bModel"}
    folder = put(tmp_path, filled(config), config.replace(extra={"auto_map": code}))
    (tmp_path / "modeling_mine.py").write_text("raise SystemExit('it was run')", encoding="utf-8")
    with pytest.warns(
        UserWarning, match=r"modeling_mine\.My\\x1bModel \(auto_map\): it is not run, .* than BERT"
    ) as caught:
        nz.load(folder)
    assert caught[0].filename == __file__ and len(caught) == 1
    assert main(["inspect", str(folder)]) == 0
    assert "names code of its own for the model, modeling_mine.My\\x1bModel (auto_map)" in capsys.readouterr().out
    for extra in ({"auto_map": {"AutoTokenizer": ["tokenization_mine.Mine", None]}}, {"auto_map": "mine"}):
        nz.load(put(tmp_path, filled(config), config.replace(extra=extra)))  # any warning is an error in these tests


def test_fewer_layers_than_the_file_has_are_said(tmp_path):
    config = CONFIGS["bert"]
    folder = put(tmp_path, filled(config), config.replace(num_hidden_layers=config.num_hidden_layers - 1))
    with pytest.warns(UserWarning, match=r"nothing is computed with encoder\.layer\.\d+\..* and 13 more, .*num_hidden"):
        nz.load(folder)


def test_tensors_of_heads_and_of_a_loss_give_no_warning(tmp_path):
    tensors = filled() | {"classifier.weight": np.ones((2, 3), "f4"), "criterion.weight": np.ones(2, "f4")}
    assert nz.load(put(tmp_path, tensors)).keys() == tensors.keys()  # any warning is an error in these tests


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod._fsdp_wrapped_module."]
)
@pytest.mark.parametrize("prefix", ["", "nezha.", "model.bert."])
def test_parts_that_were_compiled_sharded_or_checkpointed_are_read(tmp_path, prefix, wrapper):
    """PyTorch's torch.compile, FSDP and checkpoint_wrapper rename what is in each part that they wrap."""
    tensors = {name: array for name, array in filled().items() if not name.startswith("cls.")}
    names = {
        name: name.replace("encoder.", f"encoder.{wrapper}", 1).replace(".0.", f".0.{wrapper}") for name in tensors
    }
    assert names[f"{QUERY}bias"] == f"encoder.{wrapper}layer.0.{wrapper}attention.self.query.bias"
    assert_same(nz.load(put(tmp_path, {prefix + names[name]: tensors[name] for name in tensors})), tensors)


def test_one_name_with_and_without_a_wrapper_is_refused(tmp_path):
    twice = filled() | {f"encoder.layer.0._orig_mod.{QUERY[16:]}bias": np.ones(8, "float32")}
    with pytest.raises(ValueError, match=rf"one tensor for {QUERY}bias, got .*0\._orig_mod\..* and "):
        nz.load(put(tmp_path, twice))


def test_what_is_there_instead_of_a_missing_tensor_is_named(tmp_path):
    """PEFT's base_layer and torch.nn.utils.prune's weight_orig stand where the matrix was."""
    tensors = filled()
    matrix = tensors.pop(f"{QUERY}weight")
    for other in (f"{QUERY}base_layer.weight", f"{QUERY}weight_orig"):
        folder = put(tmp_path / other, tensors | {other: matrix})
        with pytest.raises(
            ValueError, match=rf"missing {QUERY}weight, got others that are not known, such as {other}$"
        ):
            nz.load(folder)


def test_tensors_without_numbers_are_explained(tmp_path):
    """DeepSpeed's ZeRO-3 saves such a file where the partitions are not gathered."""
    empty = {name: np.zeros(0, "float32") for name in filled()}
    for path in (put(tmp_path / "one", empty), put_torch(tmp_path / "other", empty)):
        with pytest.raises(ValueError, match=r"\(0,\) instead of .*; tensors without numbers .* zero_to_fp32\.py"):
            nz.load(path)
