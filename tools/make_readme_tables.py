"""Make the table of task heads in README.md and README.zh.md from the registry `nezha_np.model.tasks.TASKS`.

    python tools/make_readme_tables.py

writes both; a test holds that they are what this makes.
"""

from __future__ import annotations

import re
from pathlib import Path

from nezha_np.families.family import FAMILIES
from nezha_np.model.tasks import TASKS

REPOSITORY = Path(__file__).parents[1]
SHOWN = ("nezha", "bert", "convbert")  # the families of the package, without those that a user registers
# The registry's words in Chinese, and what each task is called there.
CHINESE = {
    "head": "任务头",
    "labels": "标签",
    "loss": "损失",
    "yes": "支持",
    "no": "不支持",
    ", ": "、",
    "pretraining": "预训练",
    "masked_lm": "掩码语言模型",
    "next_sentence_prediction": "下一句预测",
    "sequence_classification": "文本分类",
    "multiple_choice": "多项选择",
    "token_classification": "序列标注",
    "question_answering": "抽取式问答",
    "causal_lm": "因果语言模型",
    "a token id for each token": "每个词元一个目标词元 id",
    "a token id for each token, shifted by one": "每个词元一个目标词元 id，错开一位",
    "0 or 1 for each pair": "每个句对为 0 或 1",
    "numbers, a class, or several labels for each text": "每条文本对应数值、一个类别或多个标签",
    "the right choice": "正确选项",
    "a class for each token": "每个词元一个类别",
    "sum of both tasks' cross-entropies": "两项任务的交叉熵之和",
    "cross-entropy": "交叉熵",
    "squared error, cross-entropy, or binary cross-entropy": "均方误差、交叉熵或二元交叉熵",
    "cross-entropy over the choices": "各选项上的交叉熵",
    "mean of two cross-entropies": "两个交叉熵的平均",
}
READMES = {"README.md": {}, "README.zh.md": CHINESE}


def table_of_heads(words: dict[str, str]) -> str:
    """Make the table: a row for each task, with the families that have it, its labels and its loss."""

    def say(text: str) -> str:
        return words[text] if words and text else text

    titles = [FAMILIES[family].title for family in SHOWN]
    rows = [[say("head"), *titles, say("labels"), say("loss")], ["---"] * (len(SHOWN) + 3)]
    for task in TASKS.values():
        name = f"`{task.name}`" + (f"（{words[task.name]}）" if task.labels and words else "")
        several = words.get(", ", ", ").join(f"`{label}`" for label in task.labels)
        labels = several if len(task.labels) > 1 else say(task.label_is)
        rows.append([name, *(say("yes" if one in task.families else "no") for one in SHOWN), labels, say(task.loss)])
    return "".join("|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|\n" for row in rows)


def table_in(text: str) -> str:
    """Find the table in the text of a README: the one whose rows begin with the functions of the tasks."""
    (found,) = re.findall(r"^\|[^\n]*\n\| --- [^\n]*\n\| `forward` [^\n]*\n(?:\|[^\n]*\n)+", text, flags=re.MULTILINE)
    return found


def main() -> None:
    """Write the tables."""
    for name, words in READMES.items():
        path = REPOSITORY / name
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(table_in(text), table_of_heads(words)), encoding="utf-8")


if __name__ == "__main__":
    main()
