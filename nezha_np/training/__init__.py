"""How a model is trained: NEZHA's recipe, one idea in a file.

Examples
--------
>>> import nezha_np as nz
>>> from nezha_np.training import lamb
>>> weights = nz.load()
>>> ids = [[2, 10, 11, 3]]
>>> out, gradients = nz.value_and_grad(nz.masked_lm)(weights, ids, labels=ids)
>>> weights, state = lamb.step(weights, gradients, lamb.init(weights), learning_rate=1e-3)
>>> bool(nz.masked_lm(weights, ids, labels=ids).loss < out.loss), state.steps
(True, 1)
"""

from nezha_np.training.accumulation import accumulate
from nezha_np.training.clipping import clip_by_global_norm, global_norm
from nezha_np.training.loop import Step, first_step, train
from nezha_np.training.loss_scale import LossScale
from nezha_np.training.optimizers import adamw, bert_adam, lamb
from nezha_np.training.optimizers.state import OptimizerState, load_state, save_state
from nezha_np.training.schedule import warmup_polynomial_decay

__all__ = [
    "LossScale",
    "OptimizerState",
    "Step",
    "accumulate",
    "adamw",
    "bert_adam",
    "clip_by_global_norm",
    "first_step",
    "global_norm",
    "lamb",
    "load_state",
    "save_state",
    "train",
    "warmup_polynomial_decay",
]
