"""Record the ids that transformers' BertTokenizerFast gives some texts with the vocabulary that ships with the package.

    python tools/make_tokenizer_golden.py

writes tests/data/tokenizer_golden.json. The tests compare `encode` with it under every version of tokenizers, also
under those with which transformers 4.37.2 cannot be imported.
"""

from __future__ import annotations

import json
from pathlib import Path

from transformers import BertTokenizerFast

REPOSITORY = Path(__file__).parents[1]
SHIPPED = REPOSITORY / "nezha_np" / "checkpoints" / "nezha-tiny-zh"
TEXTS = [
    "房间很干净。",
    "房间很[MASK]净，[MASK]务也好！",
    "[CLS]特殊[SEP]词[PAD]在[UNK]文中",
    "[mask] [ MASK ] [MASK][MASK]",
    "新华社北京一月一日电",
    "性价比很高,GPU跑得飞快",
    "Hello, World! It's 3.14 — isn't it?",
    "Café naïve Ångström ÉCOLE",
    "e\u0301 decomposed, ñ composed, ﬁ ligature, ß, İstanbul",
    "Привет, Ελλάδα, שלום, مرحبا",
    "한국어 텍스트, ひらがな と カタカナ",
    "ｆｕｌｌ－ｗｉｄｔｈ　１２３！？（全角）",
    "emoji 😀 👨\u200d👩\u200d👧 🇨🇳 ❤\ufe0f",
    "\U00020000\U0002a700 扩展区 \U00030000 㐀 豈 \U0002f800",
    "〇々〆ㄅㄆ㊗①Ⅷ℃",
    "tab\tnew\nline\r\nreturn\rvt\x0bff\x0c",
    "nbsp\xa0em\u2003zero\u200bwidth ideographic\u3000line\u2028para\u2029end",
    "control\x00\x01\x07\x1f\x7f\x85\xad\ufeff\ufffd characters",
    "soft\xadhyphen and bidi \u202eoverride\u202c",
    "unassigned \u0378 private \ue000 noncharacter \ufdd0 \U0010ffff",
    "x" * 100,
    "x" * 101,
    "超" * 30 + "长" * 30,
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "http://www.example.com/a_b?c=1&d=%20#e",
    "a@b.cn $100 £5 ¥6 50% x^2 `code` ~ | \\",
    "“引号”‘单’《书名》【方】…—·、；：",
    "2023年12月31日23:59:59",
    "1,234,567.89元 -5℃ ±3σ",
    "的的的的的 哈哈哈哈",
    "##ing 房##间",
    "   leading and trailing   ",
    "",
    " ",
    "\n",
    "\u200b",
    "。",
    "a",
    "Ⅳ ½ ² ªº ™",
    "नमस्ते ไทย \u0e33 Tiếng Việt",
]


def main() -> None:
    """Write the file."""
    tokenizer = BertTokenizerFast.from_pretrained(SHIPPED)
    cases: list[tuple[list[str], list[str] | None]] = [([text], None) for text in TEXTS]
    cases += [([first], [second]) for first, second in zip(TEXTS[:12], reversed(TEXTS), strict=False)]
    cases += [(TEXTS[:8], None), (TEXTS[:8], TEXTS[8:16])]
    records = []
    for texts, pairs in cases:
        for max_length in (None, 7, 12):
            cut = max_length is not None
            batch = tokenizer(texts, pairs, padding=True, truncation=cut, max_length=max_length)
            records.append({"texts": texts, "pairs": pairs, "max_length": max_length, "batch": dict(batch)})
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    (REPOSITORY / "tests" / "data" / "tokenizer_golden.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
