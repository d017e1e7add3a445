"""Optimisers, one in a file: the formula, then one step of it.

    bert_adam    Adam as BERT's authors wrote it
    adamw        Adam with decoupled weight decay
    lamb         Adam whose step has, for each tensor, the length of the tensor: NEZHA's
    moments      what the three have in common: the means of the gradients and of their squares
    state        what an optimiser remembers from step to step, and its file

An optimiser is a module with two functions: ``state = lamb.init(weights)`` and
``weights, state = lamb.step(weights, gradients, state, learning_rate=…)``.
"""
