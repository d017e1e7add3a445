"""What a model is: the configuration, the contract of a family, and NEZHA, BERT and ConvBERT each in one file."""

from nezha_np.families import bert, convbert, nezha  # each registers its family

__all__ = ["bert", "convbert", "nezha"]
