"""PaddleNLP, which needs NumPy 1: it runs in an environment and a process of its own, which PADDLE_PYTHON names.

pip install paddlepaddle==3.3.1 paddlenlp==2.8.1 'huggingface_hub<0.24' 'datasets<2.20' 'pyarrow<20' 'setuptools<80'
PADDLE_PYTHON=…/bin/python python benchmarks/ports/check.py paddlenlp
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES, NAMES = (), "paddlenlp"
TOKENS = ("input_ids", "token_type_ids", "attention_mask")
BUNDLES = ("bert-pretraining", "bert-forward-pairs", "nezha-pretraining", "nezha-forward-pairs", "nezha-forward-eps")


def run(bundle):
    """Run this file in PaddleNLP's environment, from the bundle's file to one of its arrays."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        golden, theirs = Path(folder) / "golden.safetensors", Path(folder) / "theirs.npz"
        bundle.save(golden)
        command = [os.environ["PADDLE_PYTHON"], __file__, golden, theirs]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": ""})
        return dict(np.load(theirs))


def compute(golden: str, theirs: str) -> None:
    """Give a model of PaddleNLP a bundle's weights and inputs, and write what its layers return."""
    import numpy as np
    import paddle
    import safetensors
    from paddlenlp import transformers

    with safetensors.safe_open(golden, framework="numpy") as file:
        document = json.loads(file.metadata()["nezha_np_golden"])
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names if name.startswith(("inputs/", "weights/"))}
    config, of_nezha = document["config"], document["config"]["model_type"] == "nezha"
    kind = {"pretraining": "ForPretraining", "forward": "Model"}[document["head"]]
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
             "max_position_embeddings", "type_vocab_size", "layer_norm_eps")  # fmt: skip
    options = {name: config[name] for name in sizes}
    if of_nezha:
        options |= {"max_relative_position": config["max_relative_position"], "use_relative_position": True}
    family = "NeZha" if of_nezha else "Bert"
    model = getattr(transformers, f"{family}{kind}")(getattr(transformers, f"{family}Config")(**options))
    model.eval()
    for name, parameter in model.named_parameters():
        array = tensors[f"weights/{our_name(name)}"].astype("float32")
        transposed = name.endswith(".weight") and len(array.shape) == 2 and "embeddings" not in name
        parameter.set_value(paddle.to_tensor(array.T if transposed else array))
    made = {}
    for name, layer in model.named_sublayers():
        layer.register_forward_post_hook(lambda _, __, output, name=name: keep(made, name, output))
    given = {name: tensors[f"inputs/{name}"] for name in TOKENS if f"inputs/{name}" in tensors}
    model(**{name: paddle.to_tensor(array) for name, array in given.items()})
    np.savez(theirs, **made)


def keep(made, name, output):
    """Keep the first tensor that a layer returns."""
    output = output[0] if isinstance(output, (tuple, list)) else output
    if hasattr(output, "numpy"):
        made[name] = output.numpy()


def our_name(name: str) -> str:
    """Name a parameter of theirs as ours, by the table that ships with nezha_np."""
    import re
    import tomllib

    table = Path(__file__).parents[2] / "nezha_np" / "oracle" / "names" / "paddlenlp.toml"
    names = tomllib.loads(table.read_text(encoding="utf-8"))["names"]
    name = re.sub(r"^(nezha|bert)\.", "", name)
    for their, our in sorted(names.items(), key=lambda pair: -pair[0].count(".")):
        found = re.fullmatch(re.escape(their).replace(r"\*", "([^.]*)") + r"((?:\..*)?)", name)
        if found:
            *stars, below = found.groups()
            for star in stars:
                our = our.replace("*", star, 1)
            return our + below
    return name


if __name__ == "__main__":
    compute(sys.argv[1], sys.argv[2])
