"""The exercises of the notebooks: whether an answer is right, and if it is not, what is wrong with it.

`check("02.3", answer)` prints one line, in English and in Chinese. The folded answers are checked by it too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

RIGHT = "right · 对"
NOT_YET = "not yet · 还不对"
UNANSWERED = "put your answer in place of the dots · 请把答案填在省略号处"


class Exercise(NamedTuple):
    """What is asked, what is right, and what people answer instead."""

    form: str  # of the answer
    expected: Any  # a number, a text, a list or an array of them; or a function that says whether an answer is right
    mistakes: tuple[tuple[Any, str], ...] = ()  # a wrong answer, and what is wrong with it
    within: float = 1e-9  # how far from a number an answer may be, relative to it


def check(number: str, answer: Any) -> None:
    """Say whether the answer to an exercise is right; dots are no answer yet."""
    print(f"{number}: {verdict(EXERCISES[number], answer)}")


def verdict(exercise: Exercise, answer: Any) -> str:
    """Return the line that `check` prints, without its number."""
    if answer is ...:
        return f"{UNANSWERED}: {exercise.form}"
    if callable(exercise.expected):
        return RIGHT if accepts(exercise.expected, answer) else f"{NOT_YET}: {exercise.form}"
    if same(answer, exercise.expected, exercise.within):
        return RIGHT
    for mistake, why in exercise.mistakes:
        if same(answer, mistake, exercise.within):
            return f"{NOT_YET}: {why}"
    found, expected = as_array(answer), as_array(exercise.expected)
    if found is None or found.shape != expected.shape:
        got = type(answer).__name__ if found is None else f"shape {found.shape}"
        return f"{NOT_YET}: {exercise.form}; expected · 应为 shape {expected.shape}, got · 却是 {got}"
    if expected.size > 1:
        right = sum(
            same(*pair, exercise.within) for pair in zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)
        )
        return f"{NOT_YET}: {right} of {expected.size} are right · {expected.size} 个中对了 {right} 个"
    return f"{NOT_YET}: {exercise.form}"


def same(answer: Any, expected: Any, within: float) -> bool:
    """Compare numbers within a distance, everything else exactly."""
    found, wanted = as_array(answer), as_array(expected)
    if found is None or found.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "iuf" and found.dtype.kind in "iuf":
        return bool(np.allclose(found, wanted, rtol=within, atol=1e-9))
    return found.dtype.kind == wanted.dtype.kind and bool((found == wanted).all())


def as_array(answer: Any) -> Any:
    """Make an array of an answer; None where it is none, such as lists of different lengths."""
    try:
        array = np.asarray(answer)
    except ValueError:
        return None
    return None if array.dtype.kind == "O" else array


def accepts(is_right: Callable[[Any], bool], answer: Any) -> bool:
    """Ask a function whether an answer is right; an answer that it cannot read is not."""
    try:
        return bool(is_right(answer))
    except (TypeError, ValueError, KeyError, IndexError):
        return False


def rounding_alone(answer: Any) -> bool:
    """Say whether a difference is one number that rounding explains."""
    return np.ndim(answer) == 0 and 0 <= float(answer) < 1e-10


def cut_is_not_shortest(answer: tuple[str, Collection[str]]) -> bool:
    """Say whether the longest piece first needs more pieces for a word than another way to write it."""
    word, vocabulary = answer
    fewest: list[float] = [0, *[float("inf")] * len(word)]
    for stop in range(1, len(word) + 1):
        for start in range(stop):
            if ("##" if start else "") + word[start:stop] in vocabulary:
                fewest[stop] = min(fewest[stop], fewest[start] + 1)
    pieces, start = 0, 0
    while start < len(word):
        ends = [
            end for end in range(start + 1, len(word) + 1) if ("##" if start else "") + word[start:end] in vocabulary
        ]
        if not ends:
            return False
        pieces, start = pieces + 1, ends[-1]
    return pieces > fewest[-1]


DIFFERENCE = "the largest difference, a number that only rounding makes · 最大差值，只含舍入误差的一个数"

EXERCISES = {
    "01.1": Exercise(
        "the token types, (1, 11) · 词元类型，(1, 11)",
        [[0] * 6 + [1] * 5],
        (
            ([[0] * 5 + [1] * 6], "the first [SEP] belongs to the first text · 第一个 [SEP] 属于第一条文本"),
            ([[1] * 6 + [0] * 5], "the first text has type 0 · 第一条文本的类型是 0"),
        ),
    ),
    "01.2": Exercise(
        "how many of the multiplications are not by 0 · 有多少次乘法不是乘以 0",
        8 * 256,
        (
            (8 * 7000 * 256, "these are all multiplications · 这是全部乘法的次数"),
            (8, "each 1 multiplies a row of 256 numbers · 每个 1 要乘一行 256 个数"),
        ),
    ),
    "01.3": Exercise(
        "four times True or False: is 低 near 高, 高 near 低, 旧 near 新, 新 near 旧? · 四个 True 或 False",
        [True, True, False, False],
    ),
    "01b.1": Exercise(
        "four pieces, in the order in which they are made · 四个片段，按造出的次序",
        # Of two pairs with the same count either may be merged first, twice.
        lambda pieces: list(pieces) in [[a, "##est", b, "low"] for a in ("##st", "##es") for b in ("lo", "##ow")],
    ),
    "01b.2": Exercise(
        "a word, and a set of pieces that can write it in fewer · 一个词，和一个能用更少片段写出它的集合",
        cut_is_not_shortest,
    ),
    "01b.3": Exercise(
        "the pieces of wifiд, a list · wifiд 的片段，一个列表",
        ["[UNK]"],
        ((["wifi", "[UNK]"], "the whole word becomes [UNK] · 整个词都成为 [UNK]"),),
    ),
    "02.1": Exercise(
        "the probability of 干 for K = 64, 65, 70 and 128 · 四个 K 下“干”的概率",
        lambda found: np.allclose(found, [0.984, 0.001, 0.049, 0.0], rtol=0, atol=0.002),
    ),
    "02.2": Exercise(
        "the periods of the first pair and of the last, in steps · 第一对和最后一对的周期，以步计",
        [6.2832, 35332.9],
        (([1.0, 5623.4], "that is a turn of 1; a period is a turn of 2π · 这是转过 1；一个周期要转过 2π"),),
        within=1e-3,
    ),
    "02.3": Exercise(
        "how often each of the seven rows is used · 七行各被用到多少次",
        [45, 10, 11, 12, 11, 10, 45],
        (
            (
                [9, 10, 11, 12, 11, 10, 9],
                "larger distances are clipped to the first row and the last · 更大的距离截断到第一行和最后一行",
            ),
        ),
    ),
    "03.1": Exercise(
        "the deviation of q · k for D = 32 and 1024, not divided · D = 32 和 1024 时 q · k 的标准差，不除",
        [32**0.5, 32.0],
        (([1.0, 1.0], "that is with the division · 这是除过之后的"),),
        within=0.2,
    ),
    "03.2": Exercise(
        "the two heads that 干 needs, a list · “干”所需要的两个头，一个列表",
        [3, 7],
        (
            ([0, 4], "these look to the left; 净 is on the right of the gap · 它们看左边；“净”在空缺的右边"),
            ([7, 3], "the smaller number first · 小的在前"),
        ),
    ),
    "03.3": Exercise(DIFFERENCE, rounding_alone),
    "04.1": Exercise("the largest difference, a number · 最大差值，一个数", 4.73e-4, within=0.02),
    "04.2": Exercise(
        "the name of the block, such as encoder.layer.0.output · 块的名称，例如 encoder.layer.0.output",
        "encoder.layer.2.attention.output",
        (
            (
                "encoder.layer.3.output",
                "without it 0.76 is left; another leaves less · 去掉它还剩 0.76；另有一个剩得更少",
            ),
        ),
    ),
    "04.3": Exercise(
        "the numbers of a layer and of the embeddings in the shipped model · 附带模型中一层的、嵌入的数的个数",
        [510_688, 1_793_024],
        (
            ([509_664, 1_793_024], "a layer has two norms, of 2H numbers each · 一层有两个归一化，各有 2H 个数"),
            (
                [507_904, 1_793_024],
                "linear maps have biases, and norms have 2H numbers · 线性映射有偏置，归一化有 2H 个数",
            ),
        ),
    ),
    "05.1": Exercise(
        "the loss, a number near log 7,000 · 损失，一个接近 log 7,000 的数",
        lambda loss: np.ndim(loss) == 0 and abs(loss - np.log(7000)) < 0.3,
    ),
    "05.2": Exercise(
        "the loss at z = 1000 for t = 0 and for t = 1 · z = 1000 时 t = 0 与 t = 1 的损失",
        [1000.0, 0.0],
    ),
    "05.3": Exercise(
        "the two weights of the texts' losses, whose sum is 1 · 两条文本的损失的权重，其和为 1",
        [0.1, 0.9],
        (([0.5, 0.5], "every label has the same weight, not every text · 权重相同的是每个标签，不是每条文本"),),
    ),
    "06.1": Exercise(
        "the bytes for the shipped model and at base size · 附带的模型和 base 规模各要多少字节",
        [8_192_000, 73_728_000],
        (
            ([4_096_000, 36_864_000], "keys and values are both kept · 键和值都要保存"),
            ([16_384_000, 147_456_000], "a number of float32 has four bytes · float32 的一个数占四个字节"),
        ),
    ),
    "06.2": Exercise(
        "True or False · True 或 False",
        True,
        ((False, "give the second call the cache of the first · 第二次调用要接收第一次的缓存"),),
    ),
    "06.3": Exercise(
        "the probability of 大 for τ = 0.5, 1 and 2 · 三个 τ 下“大”的概率",
        lambda found: np.allclose(found, [0.69, 0.59, 0.37], rtol=0, atol=0.01),
    ),
    "07.1": Exercise(
        "the positions whose output changes · 输出改变的位置",
        [2, 3, 4, 5, 6],
        (([3, 4, 5], "the kernel has five positions, not three · 卷积核有五个位置，不是三个"),),
    ),
    "07.2": Exercise(
        "the numbers for BERT, NEZHA and ConvBERT · BERT、NEZHA、ConvBERT 的个数",
        [16_768, 16_768, 15_338],
    ),
    "07.3": Exercise(DIFFERENCE, rounding_alone),
    "08.1": Exercise(
        "the largest difference from NumPy's, below 1e-5 · 与 NumPy 的最大差值，小于 1e-5",
        lambda found: 0 <= float(found) < 1e-5,
    ),
    "08.2": Exercise(
        "the name of the error, a text · 错误的名称，一段文字",
        "TypeError",
        (("no error", "the weights are on the GPU, the vectors are not · 权重在 GPU 上，向量不在"),),
    ),
    "08.3": Exercise(
        "the bytes of the logits and of the ids · logits 的和 id 的字节数",
        [4_480_000, 1_280],
        (([560_000, 160], "there are 8 prompts · 有 8 段开头文本"),),
    ),
    "09.1": Exercise(
        "query, key or value · query、key 或 value",
        "key",
        (("value", "its bias goes into every context, and into the loss · 它的偏置进入每个上下文向量，也就进入损失"),),
    ),
    "09.2": Exercise(DIFFERENCE, rounding_alone),
    "09.3": Exercise(
        "twice True or False: from the look-up, from the decoder · 两个 True 或 False：来自查表，来自解码",
        [False, True],
        (([True, True], "look-ups of the padding id are left out · 对填充 id 的查表不计梯度"),),
    ),
    "10.1": Exercise(
        "twice True or False: is a mistake named in once, in theirs? · 两个 True 或 False：once 的，theirs 的",
        [True, False],
        (([True, True], "in theirs two mistakes lie between two arrays · theirs 中相邻两个数组之间有两处错误"),),
    ),
    "10.2": Exercise(
        "twice True or False: within 1e-2, within the bundle's · 两个 True 或 False：1e-2 之内，参考记录的容差之内",
        [True, False],
    ),
    "10.3": Exercise(
        "the name of the first array that differs · 第一个有差别的数组的名称",
        "encoder.layer.0.attention.self.probs",
    ),
    "11.1": Exercise(
        "how much lower than the full rate, as a part of it · 比最大学习率低几分之几",
        0.1,
        (
            (0.9, "that is the rate where the decay begins · 这是衰减开始处的学习率"),
            (0.0, "the division is what avoids the jump: leave it out · 正是那个除法避免了跳变：不要做除法"),
        ),
    ),
    "11.2": Exercise(
        "two parts: with whole words, with single tokens · 两个比例：整词遮盖时，单个词元遮盖时",
        lambda shares: shares[0] == 0 and 0.8 < shares[1] < 0.9 and len(shares) == 2,
    ),
    "11.3": Exercise(
        "three factors: of LAMB, of AdamW, of plain descent · 三个倍数：LAMB、AdamW、普通梯度下降",
        [1, 1, 1000],
        (([1000, 1000, 1000], "the first two divide by the root of the mean square · 前两者都除以均方根"),),
    ),
    "12.1": Exercise(
        "three numbers: the lowest accuracy, the highest, how many reviews · 三个数：最低、最高的准确率，需要的评论数",
        [0.878787, 0.921213, 3600],
        (
            ([0.889393, 0.910607, 900], "take two standard errors to each side · 两侧都要取两个标准误差"),
            ([0.878787, 0.921213, 900], "take two standard errors to each side · 两侧都要取两个标准误差"),
        ),
        within=5e-3,
    ),
    "12.2": Exercise(
        "two numbers: F1 of the names, accuracy of the tags · 两个数：名称的 F1，标记的准确率",
        [0.5, 0.875],
        (([1.0, 0.875], "half a name is a wrong name · 半个名称就是一个错误的名称"),),
        within=0.01,
    ),
    "12.3": Exercise(
        "for 4 and for 100 characters the score without and with the division · 4 个字和 100 个字，不除与除的分数",
        [[0.4, 0.2], [10.0, 1.0]],
        (([[0.4, 0.1], [10.0, 0.1]], "the length of a row of n ones is √n · 由 n 个 1 组成的一行，长度是 √n"),),
    ),
}
