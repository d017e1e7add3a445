"""docs/checkpoints.md: its example and its commands run, and its messages are those of the package."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import nezha_np as nz
import nezha_np.cli
from nezha_np.layers.relative_position import relative_position_table

PAGE = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
CONFIG = nz.NezhaConfig(
    vocab_size=3000, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8,
    max_position_embeddings=16, max_relative_position=5,
)  # fmt: skip


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def circulating_checkpoint(tmp_path, monkeypatch):
    """Make a small checkpoint as it circulates: of PyTorch, called BERT's, with a position table in each layer."""
    torch = pytest.importorskip("torch", reason="torch.save writes the file")
    monkeypatch.chdir(tmp_path)
    weights = nz.init(CONFIG)
    weights.save("NeZha_Chinese_PyTorch")
    folder = tmp_path / "NeZha_Chinese_PyTorch"
    (folder / "model.safetensors").unlink()
    tensors = {f"bert.{name}": torch.tensor(np.array(array)) for name, array in weights.items()}
    table = relative_position_table(np.zeros(1, "float32"), head_size=4, max_relative_position=5)
    position = np.arange(16)
    distance = np.clip(position[None, :] - position[:, None], -5, 5) + 5
    for layer in range(2):
        name = f"bert.encoder.layer.{layer}.attention.self.relative_positions_encoding.positions_encoding"
        tensors[name] = torch.tensor(table[distance])
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def test_the_example_and_the_commands_run(circulating_checkpoint, capsys):
    for block in blocks("python"):
        exec(compile(block, "checkpoints.md", "exec"), {})
    for command in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(command)
        assert program == "nezha-np" and nezha_np.cli.main(arguments) == 0, command
    assert "masked_lm: complete" in capsys.readouterr().out
    small, large = Path("nezha/model.safetensors"), circulating_checkpoint / "pytorch_model.bin"
    assert small.stat().st_size < large.stat().st_size
    ids = [[101, 2791, 102]]
    expected = nz.forward(nz.load(circulating_checkpoint), ids).last_hidden_state
    assert np.array_equal(nz.forward(nz.load("nezha"), ids).last_hidden_state, expected)


def test_the_messages_are_those_that_are_raised(circulating_checkpoint):
    hostile, wrong_family = (" ".join(block.split()) for block in blocks("text"))
    (circulating_checkpoint / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ValueError) as error:
        nz.load(circulating_checkpoint)
    assert str(error.value).endswith(wrong_family)
    (circulating_checkpoint / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'rm -r *'\ntR.")
    with pytest.raises(ValueError) as error:
        nz.load(circulating_checkpoint)
    assert str(error.value).endswith(hostile)
