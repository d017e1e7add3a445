"""The layers: one file per idea, each with its formula, its definition and its gradient."""
