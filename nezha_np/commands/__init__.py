"""The subcommands of ``nezha-np``, one file for each; `nezha_np.cli` joins them.

Each file has

- ``add(commands)``: add the subcommand's parser, and set its ``run`` as the default of that name;
- ``run(options) -> int``: do what the options say, print the result, and return the exit status. An error is raised:
  `nezha_np.cli.main` makes one line of it, in which an argument of Python is named as its option is typed
  (`nezha_np.commands.parser`).

``golden``, which has subcommands of its own, has a ``run_…`` for each of them.

All of these files are imported for the help. So what takes long to import and one subcommand alone needs (the oracle,
the page of ``explain``, the conversion of checkpoints, the engine of ``embed``) is imported when that subcommand runs.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

# What `add` is given, the result of `add_subparsers`: argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

OPTIMIZERS = ("lamb", "adamw", "bert_adam")  # those of `nezha_np.training.loop`, which takes long to import
