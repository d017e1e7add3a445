"""Draw docs/report.png: the report of the port of docs/oracle.md, with its two mistakes.

    python tools/make_report_screenshot.py

needs torch, selenium, and Chromium with its driver.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from make_explain_screenshot import capture, open_browser, set_size

DOCS = Path(__file__).parents[1] / "docs"
PICTURE = DOCS / "report.png"
TEXT, PAIR = "房间很干净。", "还会再来。"
WIDTH, SECTIONS = 1100, ("diagram-title", "where-title")  # the picture begins at the first and ends at the second


def main() -> None:
    """Write the picture."""
    sys.path.insert(0, str(DOCS))
    from broken_port import OUR_NAMES, Nezha

    import nezha_np as nz

    tokenizer = nz.load_tokenizer()
    batch = nz.encode(tokenizer, [TEXT], [PAIR])
    bundle = nz.oracle.record(nz.load(), **batch, head="masked_lm", labels=batch["input_ids"], tolerances="quick")
    theirs = nz.oracle.capture_torch(Nezha(bundle.weights()), **bundle.inputs, rename=OUR_NAMES)
    with tempfile.TemporaryDirectory() as folder, open_browser("--hide-scrollbars") as window:
        page = Path(folder) / "report.html"
        page.write_text(nz.oracle.report(bundle, theirs), encoding="utf-8")
        set_size(window, WIDTH, 900, scale=2)
        window.get(page.as_uri())
        tops = [
            window.execute_script(f"return document.getElementById('{name}').getBoundingClientRect().top + scrollY")
            for name in SECTIONS
        ]
        clip = {"x": 0, "y": tops[0] - 16, "width": WIDTH, "height": tops[1] - tops[0], "scale": 1}
        PICTURE.write_bytes(capture(window, clip))


if __name__ == "__main__":
    main()
