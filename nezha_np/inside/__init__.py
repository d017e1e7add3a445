"""What happens inside a model: experiments on a pass, each a function with its formula and its source.

    patching            what of a pass makes its answer: activations of one text put into the pass of another one
    ablation            what a head is for: the answer without it
    head_importance     how much the loss depends on each head, by one gradient
    input_gradients     which tokens the loss depends on: gradient × input, integrated gradients
    attention_rollout   from which tokens each layer's vectors are mixed
    logit_lens          what the model would answer after each layer

They are made of `nezha_np.intervene`, `nezha_np.trace` and `nezha_np.value_and_grad`, and short: read them, and write
your own.
"""

from nezha_np.inside.ablation import ablate_heads
from nezha_np.inside.attention_rollout import attention_rollout
from nezha_np.inside.head_importance import head_importance
from nezha_np.inside.input_gradients import gradient_times_input, integrated_gradients
from nezha_np.inside.logit_lens import logit_lens
from nezha_np.inside.patching import patch_activations, patch_path

__all__ = [
    "ablate_heads",
    "attention_rollout",
    "gradient_times_input",
    "head_importance",
    "integrated_gradients",
    "logit_lens",
    "patch_activations",
    "patch_path",
]
