"""Cut the notebooks' font out of Noto Sans CJK SC; needs fonttools and that font (Debian: fonts-noto-cjk).

python notebooks/fonts/make.py /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc

What is kept: every character of the notebooks' sources, Chinese punctuation, and the characters that the shipped model
holds to be the commonest: those with the largest biases in its language-model head. The rest is left out, because the
whole font is 19 MB. Latin letters come from matplotlib's own font.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTCollection, TTFont

import nezha_np as nz

FOLDER = Path(__file__).parent
SOURCES = FOLDER.parent / "source"
FAMILY = "Nezha Notebooks CJK"  # a name of its own: never mixed up with the whole font where that is installed
COMMONEST = 1450
PUNCTUATION = "　、。〈〉《》「」『』【】！（），：；？～…—·"


def is_chinese(character: str) -> bool:
    """Say whether this is a Chinese character, and no other piece of the vocabulary."""
    return len(character) == 1 and "\u4e00" <= character <= "\u9fff"


def characters() -> str:
    """Return what the font holds, in the order of Unicode."""
    weights, tokenizer = nz.load(), nz.load_tokenizer()
    by_bias = np.argsort(-weights["cls.predictions.bias"], kind="stable")
    chinese = filter(is_chinese, (tokenizer.id_to_token(int(index)) or "" for index in by_bias))
    written = "".join(path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.md")))
    kept = {character for _, character in zip(range(COMMONEST), chinese, strict=False)}
    return "".join(sorted(kept | set(filter(is_chinese, written)) | set(PUNCTUATION)))


def simplified(file: Path) -> TTFont:
    """Open the font for simplified Chinese out of a collection."""
    fonts = TTCollection(str(file)).fonts
    return next(font for font in fonts if font["name"].getDebugName(1) == "Noto Sans CJK SC")


def main(file: Path) -> None:
    """Write the subset beside this program."""
    font = simplified(file)
    options = Options(hinting=False, layout_features=[], name_IDs=[0, 1, 2, 3, 4, 5, 6, 13, 14], notdef_outline=True)
    subsetter = Subsetter(options)
    subsetter.populate(text=characters())
    subsetter.subset(font)
    for name_id, name in {1: FAMILY, 3: FAMILY, 4: FAMILY, 6: FAMILY.replace(" ", "")}.items():
        for record in [record for record in font["name"].names if record.nameID == name_id]:
            font["name"].setName(name, name_id, record.platformID, record.platEncID, record.langID)
    if "CFF " in font:
        font["CFF "].cff.fontNames = [FAMILY.replace(" ", "")]
    font["head"].modified = font["head"].created  # the same characters make the same file
    font.recalcTimestamp = False
    font.save(FOLDER / "notebooks-cjk.otf")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
