"""One self-contained HTML page, of markup, style, script and data: it needs no server, no library, and loads nothing.

A page is three files side by side: ``NAME.html``, its sections, ``NAME.css`` and ``NAME.js``. What all pages share is
in this folder: ``shared.html``, in which the sections stand, and ``shared.css`` and ``shared.js``, which come first.
Before its own script a page may have others: what several pages draw alike, or modules that Node.js imports too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SHARED = Path(__file__).with_name("shared")


def fill_page(page: Path, title: str, shown: Mapping[str, Any], before: Iterable[Path] = ()) -> str:
    """Join a page's markup, style, script and data.

    The content security policy allows this script alone, by its hash. The data is written so that a browser reads
    nothing in it as markup.

    Parameters
    ----------
    page : Path
        The sections; style and script stand next to it.
    title : str
        The title of the window.
    shown : mapping
        What the script draws, which can be written as JSON.
    before : iterable of Path
        Scripts that stand between the shared one and the page's, in this order; of modules without the lines of
        ``import`` and the word ``export``.

    Returns
    -------
    str
        HTML, to be written as UTF-8.

    Examples
    --------
    >>> from nezha_np.explanation.explain import PAGE
    >>> page = fill_page(PAGE, "a < b", {"text": "</script><b>"})
    >>> "<title>a &lt; b</title>" in page, "</script><b>" in page
    (True, False)
    """
    import base64  # here, because only this function needs these modules
    import hashlib
    import html
    import re

    def read(*files: Path) -> str:
        return "".join(file.read_text(encoding="utf-8") for file in files)

    style = read(SHARED.with_suffix(".css"), page.with_suffix(".css"))
    scripts = (SHARED.with_suffix(".js"), *before, page.with_suffix(".js"))
    script = "\n" + re.sub(r"^(import .*\n|export )", "", read(*scripts), flags=re.MULTILINE)  # hashed as it stands
    frame = read(SHARED.with_suffix(".html"))
    data = json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    texts = {
        "sections": read(page),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": data,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], frame)  # in one step: a text may hold {{data}}
