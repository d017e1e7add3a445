"""One self-contained HTML page, of markup, style, script and data: it needs no server, no library, and loads nothing.

A page is three files side by side: ``NAME.html``, its sections, ``NAME.css`` and ``NAME.js``. What all pages share is
in this folder: ``shared.html``, in which the sections stand, and ``shared.css`` and ``shared.js``, which come first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHARED = Path(__file__).with_name("shared")


def fill_page(page: Path, title: str, shown: Mapping[str, Any]) -> str:
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

    style, script = (
        "".join(part.with_suffix(suffix).read_text(encoding="utf-8") for part in (SHARED, page))
        for suffix in (".css", ".js")
    )
    frame = SHARED.with_suffix(".html").read_text(encoding="utf-8")
    data = json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    script = f"\n{script}"  # the hash is that of everything between the tags
    texts = {
        "sections": page.read_text(encoding="utf-8"),
        "title": html.escape(title),
        "style": style,
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": data,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: texts[match[1]], frame)  # in one step: a text may hold {{data}}
