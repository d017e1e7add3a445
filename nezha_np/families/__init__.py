"""What a model is: the configuration, the contract of a family, and NEZHA, BERT and ConvBERT each in one file."""

from nezha_np.families import bert, convbert, nezha
from nezha_np.families.family import FAMILIES, Family, FamilyTask, family_of, register

for _family in (nezha.NEZHA, bert.BERT, convbert.CONVBERT):  # in the order in which messages and tables name them
    register(_family)

__all__ = ["FAMILIES", "Family", "FamilyTask", "bert", "convbert", "family_of", "nezha", "register"]
