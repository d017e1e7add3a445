"""Draw docs/explain.png: the attention of the shipped model as the page of `nezha_np.explain` shows it.

    python tools/make_explain_screenshot.py

needs selenium, Chromium with its driver, and a font with Chinese characters.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TEXT = "这家酒店的房间很[MASK]净，早餐也好吃。"
PICTURE = Path(__file__).parents[1] / "docs" / "explain.png"
# Chromium shows the page alone: without the user's profile, updates or network.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-device-scale-factor=1",
)


def find_browser() -> tuple[str | None, str | None]:
    """Find Chromium and its driver, under the names that distributions give them."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, browsers)), None), shutil.which("chromedriver")


@contextmanager
def open_browser(*flags: str) -> Iterator[Any]:
    """Start a headless Chromium with a profile of its own, and end it."""
    from selenium import webdriver

    browser, driver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, *flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        window = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
        try:
            yield window
        finally:
            window.quit()


def set_size(window: Any, width: int, height: int, *, dark: bool = False, scale: int = 1) -> None:
    """Set the size of the page, which can be smaller than a headless window, the system's theme, pixels for a pixel."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})


def capture(window: Any, clip: dict[str, float]) -> bytes:
    """Return a PNG of a part of the page, after a second in which it may be painted."""
    time.sleep(1)
    shot = window.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return base64.b64decode(shot["data"])


def main() -> None:
    """Write the picture."""
    import nezha_np as nz

    with tempfile.TemporaryDirectory() as folder, open_browser("--hide-scrollbars") as window:
        page = Path(folder) / "page.html"
        page.write_bytes(nz.explain(TEXT).encode())
        set_size(window, 1200, 900, scale=2)  # sharp on screens with two pixels for one of the page
        window.get(page.as_uri() + "#layer=3&head=2")
        top, bottom = window.execute_script(
            "const of = (id) => document.getElementById(id).getBoundingClientRect();"
            "return [of('attention-title').top, of('readout').bottom]"
        )
        clip = {"x": 0, "y": top - 16, "width": 1200, "height": bottom - top + 28, "scale": 1}
        shot, before = capture(window, clip), b""
        while shot != before:  # a busy machine has not painted all of the page at once
            shot, before = capture(window, clip), shot
        PICTURE.write_bytes(shot)
    print(f"wrote {PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
