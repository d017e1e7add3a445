"""A checkpoint may hold both names of one tensor with different numbers: what the reference computes, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import nezha_np as nz
import nezha_np.cli
from nezha_np.families.config import Config
from nezha_np.families.family import family_of

BIAS, SECOND_BIAS = "cls.predictions.bias", "cls.predictions.decoder.bias"
TABLE = "embeddings.word_embeddings.weight"
SIZES = {
    "vocab_size": 11,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 6,
    "max_position_embeddings": 16,
}
CONFIGS: dict[str, Config] = {
    "nezha": nz.NezhaConfig(**SIZES, max_relative_position=3),
    "bert": nz.BertConfig(**SIZES),
    "convbert": nz.ConvBertConfig(**SIZES, embedding_size=8, conv_kernel_size=3),
}
BERT = CONFIGS["bert"]
IDS = np.array([[2, 5, 7, 3, 1], [2, 4, 9, 10, 3]])


def filled(config: Config) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=array.shape).astype("float32") for name, array in nz.init(config).items()}


def with_another_bias(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Add the second name of the bias, with numbers that are off by 1, as the second that is trained has."""
    return tensors | {SECOND_BIAS: tensors[BIAS] + 1}


def names_in_file(tensors: dict[str, np.ndarray], config: Config) -> dict[str, np.ndarray]:
    heads = ("cls.", "generator_")
    return {name if name.startswith(heads) else f"{config.model_type}.{name}": array for name, array in tensors.items()}


def put(folder: Path, tensors: dict[str, np.ndarray], config: Config, how: str = "model.safetensors") -> Path:
    """Write a checkpoint: one file of a format, or two shards, of which the second holds what `how` says."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    named: dict[str, Any] = names_in_file(tensors, config)
    if how == "model.safetensors":
        safetensors.numpy.save_file(named, folder / how, metadata={"format": "pt"})
    elif how == "model.npz":
        np.savez(folder / how, **named)
        return folder / how
    elif how == "pytorch_model.bin":
        torch = pytest.importorskip("torch", reason="torch.save writes the file")
        torch.save({name: torch.tensor(array) for name, array in named.items()}, folder / how)
    else:
        last = {name: named.pop(name) for name in how.split()}
        places = dict.fromkeys(named, "a.safetensors") | dict.fromkeys(last, "b.safetensors")
        safetensors.numpy.save_file(named, folder / "a.safetensors")
        safetensors.numpy.save_file(last, folder / "b.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")
    return folder


EVERY_FILE = ["model.safetensors", "pytorch_model.bin", "model.npz", SECOND_BIAS]


def logits_of_the_reference(folder: Path, kind: str, config: Config) -> np.ndarray:
    torch = pytest.importorskip("torch", reason="the reference is PyTorch's")
    transformers = pytest.importorskip("transformers", reason="it is the reference")
    model = getattr(transformers, kind).from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(torch.tensor(IDS))
    logits = out.prediction_logits if "prediction_logits" in out else out.logits
    return np.array(logits.numpy())


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertForPreTraining", "BertLMHeadModel", "NezhaForMaskedLM"])
def test_of_two_names_of_a_bias_the_decoders_is_used_as_in_the_reference(tmp_path, kind, tied):
    config = CONFIGS["nezha" if kind.startswith("Nezha") else "bert"]
    config = config.replace(tie_word_embeddings=tied, is_decoder=kind == "BertLMHeadModel", architectures=(kind,))
    folder = put(tmp_path / "model", with_another_bias(filled(config)), config)
    expected = logits_of_the_reference(folder, kind, config)
    weights = nz.load(folder)
    head = nz.causal_lm if kind == "BertLMHeadModel" else nz.masked_lm
    assert np.abs(head(weights, IDS).logits - expected).max() < 1e-4
    assert np.array_equal(weights[BIAS], filled(config)[BIAS] + 1)


@pytest.mark.parametrize("how", EVERY_FILE)
def test_the_decoders_bias_is_used_in_every_kind_of_file(tmp_path, how):
    tensors = filled(BERT)
    weights = nz.load(put(tmp_path / "model", with_another_bias(tensors), BERT, how))
    assert np.array_equal(weights[BIAS], tensors[BIAS] + 1)
    assert SECOND_BIAS not in list(weights) and weights[SECOND_BIAS] is weights[BIAS]


def test_two_names_of_a_bias_in_shards_of_which_the_first_name_is_read_last_are_refused(tmp_path):
    folder = put(tmp_path / "model", with_another_bias(filled(BERT)), BERT, BIAS)
    with pytest.raises(ValueError, match=rf"got {BIAS} and {SECOND_BIAS} with a largest difference of 1, in two files"):
        nz.load(folder)


@pytest.mark.parametrize("how", ["model.safetensors", "pytorch_model.bin", "model.npz", f"bert.{TABLE}"])
def test_a_tied_decoder_that_is_not_the_word_embeddings_is_refused(tmp_path, how):
    tensors = filled(BERT)
    tensors["cls.predictions.decoder.weight"] = tensors[TABLE] + 9 * (np.arange(8) == 3).astype("float32")
    path = put(tmp_path / "model", tensors, BERT, how)
    with pytest.raises(ValueError) as error:
        nz.load(path)
    message = str(error.value)
    assert f"got bert.{TABLE} and cls.predictions.decoder.weight with a largest difference of 9" in message
    assert "set tie_word_embeddings to false" in message and str(tmp_path) in message
    # What the message advises.
    untied = nz.load(put(tmp_path / "untied", tensors, BERT.replace(tie_word_embeddings=False)))
    assert np.array_equal(untied["cls.predictions.decoder.weight"], tensors["cls.predictions.decoder.weight"])
    assert np.array_equal(untied[TABLE], tensors[TABLE])


@pytest.mark.parametrize("family", CONFIGS)
def test_a_plain_dict_and_weights_of_a_user_are_held_to_the_same(family):
    config = CONFIGS[family]
    decoder, tensors = family_of(config).decoder, filled(config)
    expected = nz.masked_lm(tensors, IDS, config=config).logits
    other = tensors | {decoder: tensors[TABLE] * 2}
    with pytest.raises(ValueError, match=rf"^weights: expected the same numbers .*{TABLE} and {decoder}"):
        nz.Weights(other, config)
    with pytest.raises(ValueError, match=r"^weights: expected the same numbers"):
        nz.masked_lm(other, IDS, config=config)
    with pytest.raises(ValueError, match=r"and .* with different shapes"):
        nz.Weights(tensors | {decoder: tensors[TABLE][:-1]}, config)
    untied = nz.Weights(other, config.replace(tie_word_embeddings=False))
    with pytest.raises(ValueError, match=r"^weights: expected the same numbers"):
        nz.masked_lm(untied, IDS, config=config)
    same = tensors | {decoder: tensors[TABLE].copy()}
    assert np.array_equal(nz.masked_lm(same, IDS, config=config).logits, expected)
    if family != "convbert":
        off_by_one = nz.masked_lm(with_another_bias(tensors), IDS, config=config).logits
        assert np.allclose(off_by_one, expected + 1, atol=1e-6)
        with pytest.raises(ValueError, match="with different shapes: leave out the one"):
            nz.Weights(tensors | {SECOND_BIAS: tensors[BIAS][:-1]}, config)


@pytest.mark.parametrize("held", ["first", "second", "both", "both in one array"])
def test_a_step_of_training_reaches_a_bias_whatever_name_the_dict_has_for_it(held):
    def step(weights):
        out, gradients = nz.value_and_grad(nz.masked_lm)(weights, IDS, labels=IDS, config=BERT)
        assert len(gradients) == len(filled(BERT)) - 4  # without pooler and next sentence
        return out.loss, {name: x - 0.5 * gradients[name] if name in gradients else x for name, x in weights.items()}

    weights = filled(BERT)
    expected = step(step(weights)[1])[0]
    if held != "first":
        bias = weights.pop(BIAS) if held == "second" else weights[BIAS]
        weights[SECOND_BIAS] = bias.copy() if held == "both" else bias
    assert abs(step(step(weights)[1])[0] - expected) < 1e-6


def test_numbers_that_are_not_numbers_are_equal_under_both_names(tmp_path):
    tensors = filled(BERT)
    tensors[TABLE][3, 2] = np.nan
    both = tensors | {"cls.predictions.decoder.weight": tensors[TABLE].copy()}
    assert np.isnan(nz.load(put(tmp_path / "model", both, BERT))[TABLE][3, 2])
    assert np.isnan(nz.Weights(both, BERT)[TABLE][3, 2])
    both["cls.predictions.decoder.weight"][3, 3] = np.nan
    with pytest.raises(ValueError, match="largest difference of nan"):
        nz.Weights(both, BERT)


def test_names_are_compared_in_float16_and_bfloat16_files_and_across_libraries(tmp_path):
    torch = pytest.importorskip("torch", reason="NumPy has no bfloat16")
    pytest.importorskip("array_api_compat", reason="torch does not speak the standard by itself")
    tensors = {name: torch.tensor(array) for name, array in filled(BERT).items()}
    same = tensors | {"cls.predictions.decoder.weight": tensors[TABLE].clone()}
    other = tensors | {"cls.predictions.decoder.weight": tensors[TABLE] * 2}
    shared = tensors | {"cls.predictions.decoder.weight": tensors[TABLE][:]}
    assert len(nz.Weights(same, BERT)) == len(nz.Weights(shared, BERT)) == len(tensors)
    with pytest.raises(ValueError, match="expected the same numbers"):
        nz.Weights(other, BERT)
    put(tmp_path / "model", filled(BERT), BERT)
    for kind in (torch.bfloat16, torch.float16):
        path = tmp_path / "model" / "model.pt"
        torch.save({name: array.to(kind) for name, array in same.items()}, path)
        assert len(nz.load(path)) == len(tensors)
        torch.save({name: array.to(kind) for name, array in other.items()}, path)
        with pytest.raises(ValueError, match="expected the same numbers"):
            nz.load(path)


def test_numbers_that_numpy_does_not_have_are_named_by_load_and_listed_by_inspect(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="it has eight-bit floats")
    safetensors_torch = pytest.importorskip("safetensors.torch", reason="it writes them")
    tensors = {name: torch.tensor(array) for name, array in names_in_file(filled(BERT), BERT).items()}
    put(tmp_path / "model", filled(BERT), BERT)
    small = tensors[f"bert.{TABLE}"].to(torch.float8_e4m3fn)
    for table, message in ((small, "expected tensors of floats"), (tensors[f"bert.{TABLE}"], "difference of nan")):
        both = tensors | {f"bert.{TABLE}": table, "cls.predictions.decoder.weight": small.clone()}
        safetensors_torch.save_file(both, tmp_path / "model" / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            nz.load(tmp_path / "model")
        assert nezha_np.cli.main(["inspect", str(tmp_path / "model")]) == 0
    assert "refused: expected the same numbers" in capsys.readouterr().out


def test_a_second_name_of_something_that_is_no_array_is_named():
    for array in ([0.0] * 11, None, "text"):
        with pytest.raises(TypeError, match=BIAS):
            nz.Weights(filled(BERT) | {SECOND_BIAS: array}, BERT)


def test_both_names_are_refused_while_jax_traces_their_numbers():
    jax = pytest.importorskip("jax", reason="it traces")
    tensors = {name: jax.numpy.asarray(array) for name, array in filled(BERT).items()}
    both = tensors | {"cls.predictions.decoder.weight": tensors[TABLE] + 0}

    def logits(weights):
        return nz.masked_lm(weights, IDS, config=BERT).logits

    with pytest.raises(ValueError, match=r"traced: leave out cls\.predictions\.decoder\.weight"):
        jax.jit(logits)(both)
    expected = nz.masked_lm(filled(BERT), IDS, config=BERT).logits
    assert np.abs(np.asarray(jax.jit(logits)(tensors)) - expected).max() < 1e-4


@pytest.mark.parametrize("family", ["nezha", "bert"])
def test_an_untied_model_is_saved_under_both_names_of_the_bias(tmp_path, family):
    """transformers 5 does not tie them: without the second name its logits lack the bias."""
    config = CONFIGS[family].replace(tie_word_embeddings=False)
    weights = nz.Weights(filled(config), config)
    weights.save(tmp_path)
    saved = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    assert np.array_equal(saved[SECOND_BIAS], weights[BIAS]) and np.array_equal(saved[BIAS], weights[BIAS])
    assert dict(nz.load(tmp_path)).keys() == dict(weights).keys()
    nz.Weights(filled(CONFIGS[family]), CONFIGS[family]).save(tmp_path)  # transformers 5 ties these
    assert SECOND_BIAS not in safetensors.numpy.load_file(tmp_path / "model.safetensors")


def test_inspect_says_which_name_is_used_and_what_is_refused(tmp_path, capsys):
    tensors = filled(BERT)
    nezha_np.cli.main(["inspect", str(put(tmp_path / "bias", with_another_bias(tensors), BERT))])
    printed = capsys.readouterr().out
    assert f"{BIAS} and {SECOND_BIAS}, differ by up to 1: {SECOND_BIAS} is used, as in the reference" in printed
    assert "not needed" not in printed
    tensors["cls.predictions.decoder.weight"] = tensors[TABLE] * 2
    assert nezha_np.cli.main(["inspect", str(put(tmp_path / "decoder", tensors, BERT))]) == 0
    assert "refused: expected the same numbers under both names of one tensor" in capsys.readouterr().out
    tensors["cls.predictions.decoder.weight"] = tensors[TABLE]
    nezha_np.cli.main(["inspect", str(put(tmp_path / "tied", tensors, BERT))])
    assert "not needed, because computed or tied: cls.predictions.decoder.weight" in capsys.readouterr().out


def test_convert_keeps_what_the_reference_uses_and_refuses_what_load_refuses(tmp_path):
    tensors = filled(BERT)
    source = put(tmp_path / "bias", with_another_bias(tensors), BERT)
    assert nezha_np.cli.main(["convert", str(source), str(tmp_path / "converted")]) == 0
    assert np.array_equal(nz.load(tmp_path / "converted")[BIAS], tensors[BIAS] + 1)
    source = put(tmp_path / "decoder", tensors | {"cls.predictions.decoder.weight": tensors[TABLE] * 2}, BERT)
    assert nezha_np.cli.main(["convert", str(source), str(tmp_path / "refused")]) == 2
    assert not (tmp_path / "refused").exists()
