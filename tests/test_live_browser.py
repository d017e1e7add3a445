"""The live page in a browser: it computes what `nezha_np` computes, and all of it can be reached by mouse and by keys.

Chromium runs headless; the page is opened as a file. Every test ends with a look at the browser's console.
"""

from __future__ import annotations

import base64

import numpy as np
import pytest
from make_explain_screenshot import find_browser, open_browser, set_size
from test_explain_browser import chosen, focus, focused, fragment, luminance, press, text

import nezha_np as nz

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = [
    pytest.mark.skipif(None in find_browser(), reason="there is no Chromium, or no chromedriver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's own sockets
]

TEXT = "房间很[MASK]净。"
CHANGED = (
    "#text=%E6%88%BF%E9%97%B4%E5%BE%88%5BMASK%5D%E5%87%80%E3%80%82&with=hello&layer=2&head=1&k=4&values=0&off=2.1,3.0"
)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as window:
        yield window


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page 页") / "live.html"
    path.write_bytes(nz.explain(TEXT, live=True).encode())
    return path


@pytest.fixture
def show(browser, page):
    """Open the page at an address; at the end the console must be empty."""

    def open_page(link: str = "", width: int = 1280, height: int = 900, dark: bool = False):
        set_size(browser, width, height, dark=dark)
        browser.get("about:blank")  # else a new link alone would not load the page again
        browser.get(page.as_uri() + link)
        browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        return browser

    browser.get_log("browser")
    yield open_page
    assert browser.get_log("browser") == []


def write(browser, field: str, words: str) -> None:
    """Replace what stands in a field, by keys."""
    focus(browser, field)
    browser.execute_script("document.activeElement.select()")
    press(browser, words)


def push(browser, button: str) -> None:
    """Press a button by keys."""
    focus(browser, f"#{button}")
    press(browser, Keys.ENTER)


def guesses(browser) -> list[str]:
    """Read what the model would write in the place of each token."""
    return [small.text[2:] for small in browser.find_elements(By.CSS_SELECTOR, ".chip small:nth-last-child(2)")]


def likeliest(words: str, **arguments) -> tuple[str, float]:
    """Compute the guess for the first [MASK], and its probability."""
    tokenizer, batch = nz.load_tokenizer(), nz.encode(nz.load_tokenizer(), words)
    at = batch["input_ids"][0].tolist().index(tokenizer.token_to_id("[MASK]"))
    logits = nz.masked_lm(nz.load(), **batch, **arguments).logits[0, at].astype(np.float64)
    probs = np.exp(logits - logits.max())
    return tokenizer.id_to_token(int(logits.argmax())), probs.max() / probs.sum()


# ----------------------------------------------------------------------------------------------------- what it computes


def test_every_array_agrees_with_a_golden_bundle_in_the_browser_too(show, tmp_path):
    browser = show()
    ids = browser.execute_script("return sides[0].tokens.map(({id}) => id)")
    assert ids == nz.encode(nz.load_tokenizer(), TEXT)["input_ids"][0].tolist()
    written = browser.execute_script(
        "const arrays = sides[0].now, bytes = writeTensors({...arrays, 'outputs/logits': arrays['cls.predictions']});"
        "let text = ''; for (const byte of bytes) text += String.fromCharCode(byte); return btoa(text)"
    )
    (tmp_path / "theirs.safetensors").write_bytes(base64.b64decode(written))
    bundle = nz.oracle.record(None, [ids], head="masked_lm", tolerances="quick")
    comparison = nz.oracle.compare(bundle, tmp_path / "theirs.safetensors")
    assert comparison and not comparison.missing, comparison.summary()


def test_what_is_typed_is_tokenised_and_filled_at_once(show):
    browser = show()
    for words in ("这家酒店的[MASK]餐也好吃。", "服务[MASK]度很好，Nice!"):
        write(browser, "#text-0", words)
        tokens = nz.load_tokenizer().encode(words).tokens
        assert [chip.text for chip in browser.find_elements(By.CSS_SELECTOR, ".chip b")] == tokens
        guess, prob = likeliest(words)
        assert guesses(browser)[tokens.index("[MASK]")] == guess
        push(browser, f"chip-0-{tokens.index('[MASK]')}")
        assert text(browser, "#said") == f"[MASK]: the model says {guess} ({prob:.3f})"
        assert text(browser, "#guesses tr").split() == [guess, f"{prob:.3f}"]


def test_a_text_without_a_token_and_one_that_is_too_long_are_shown_too(show):
    browser = show()
    write(browser, "#text-0", " ")
    assert [chip.text for chip in browser.find_elements(By.CSS_SELECTOR, ".chip b")] == ["[CLS]", "[SEP]"]
    browser.execute_script("read(sides[0], '好'.repeat(60)); show({})")
    assert len(browser.find_elements(By.CSS_SELECTOR, ".chip")) == 48
    assert "the first 48 tokens are read" in text(browser, "#said")


def test_an_unknown_character_is_named(show):
    browser = show("#text=%E9%BE%98%E5%BE%88%5BMASK%5D%E5%87%80&token=1")
    assert text(browser, "#said").startswith("[UNK] for 龘: the model says ")


def test_switched_off_heads_change_the_guess_as_a_head_mask_does(show):
    browser = show("#layer=1&head=3")
    assert not browser.find_element(By.ID, "reset").is_enabled()
    focus(browser, "#head-1-3")
    press(browser, "x", Keys.ARROW_DOWN)
    push(browser, "switch-layer")
    mask = np.ones((4, 8))
    mask[1, 3] = mask[2] = 0
    (before, was), (after, now) = likeliest(TEXT), likeliest(TEXT, head_mask=mask)
    told = f"9 of 32 heads are off. [MASK]: the model says {after} ({now:.3f}); as trained {before} ({was:.3f})."
    assert text(browser, "#effect") == told
    assert len(browser.find_elements(By.CSS_SELECTOR, ".heads .off")) == 9
    push(browser, "reset")
    assert text(browser, "#effect") == "The model is as it was trained."
    assert not browser.find_elements(By.CSS_SELECTOR, ".heads .off")


def test_positions_are_clipped_and_left_out_of_keys_and_values(show):
    browser = show()
    seen = [text(browser, "#said")]
    focus(browser, "#reach")
    press(browser, Keys.HOME)
    assert (text(browser, "#reach-number"), fragment(browser).count("&k=0")) == ("0", 1)
    seen.append(text(browser, "#said"))
    for box in ("in-keys", "in-values"):
        focus(browser, f"#{box}")
        press(browser, Keys.SPACE)
        seen.append(text(browser, "#said"))
    assert "keys=0" in fragment(browser) and "values=0" in fragment(browser)
    trained, without_distances, without_keys, without_values = seen
    assert without_distances == without_keys  # one vector for all keys adds the same to all scores: softmax ignores it
    assert len({trained, without_distances, without_values}) == 3
    position = browser.execute_script("return [...of(sides[0], 3, 'attention.self.position_scores').data]")
    assert set(position) == {0}


# ---------------------------------------------------------------------------------------------------------- the choices


def test_two_texts_stand_side_by_side(show):
    browser = show()
    push(browser, "compare")
    assert focused(browser) == "text-1"
    write(browser, "#text-1", "房间很[MASK]。")
    for group, count in (("#guesses figure", 2), ("#neurons figure", 2), ("#maps canvas", 6), (".chips", 2)):
        assert len(browser.find_elements(By.CSS_SELECTOR, group)) == count, group
    assert text(browser, "#heads-of") == "text B"
    assert text(browser, "#said").startswith("A, [MASK]: the model says 干 (")
    push(browser, "compare")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#maps canvas")) == 3


def test_a_gap_is_put_at_the_cursor(show):
    browser = show("#text=%E6%88%BF%E9%97%B4")
    focus(browser, "#text-0")
    press(browser, Keys.HOME, Keys.ARROW_RIGHT)
    push(browser, "mask")
    assert browser.find_element(By.ID, "text-0").get_attribute("value") == "房[MASK]间"
    assert chosen(browser)[2] == "[MASK]" and focused(browser) == "text-0"


def test_tokens_heads_and_pairs_are_chosen_by_keys(show):
    browser = show("#layer=0&head=0&token=1")
    focus(browser, "#chip-0-1")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert focused(browser) == "chip-0-3" and chosen(browser) == ("0", "0", "很")
    focus(browser, "#head-0-0")
    press(browser, Keys.ARROW_DOWN, Keys.END)
    assert focused(browser) == "head-1-7" and chosen(browser)[:2] == ("1", "7")
    focus(browser, "#map-0-both")
    press(browser, *[Keys.ARROW_LEFT] * 8, Keys.ARROW_DOWN)
    with nz.trace() as t:
        nz.forward(nz.load(), **nz.encode(nz.load_tokenizer(), TEXT))
    prob = t["encoder.layer.1.attention.self.probs"][0, 7, 4, 0]
    assert text(browser, "#readout").startswith("[MASK] → [CLS] (distance −4): content ")
    assert text(browser, "#readout").endswith(f"probability {prob:.3f}")


def test_the_tab_key_stops_once_at_each_group_and_the_focus_is_seen(show):
    browser = show()
    browser.execute_script("document.body.tabIndex = -1; document.body.focus()")
    stops = []
    for _ in range(30):
        press(browser, Keys.TAB)
        stop = browser.execute_script(
            "const e = document.activeElement; if (e === document.body) return null;"
            "const s = getComputedStyle(e.matches('fieldset label input') ? e.parentElement : e);"
            "return [e.closest('#steppers') ? 'bar' : e.id, s.outlineStyle !== 'none']"
        )
        if stop is None or (stop[0] != "bar" and stop[0] in stops):
            break
        assert stop[1], f"{stop[0]} has the focus, and nothing shows it"
        stops.append(stop[0])
    fields = ["text-0", "compare", "mask", "chip-0-4", "in-keys", "in-values", "reach", "switch-head", "switch-layer"]
    maps = ["map-0-content", "map-0-position", "map-0-both"]
    assert stops == ["theme", *["bar"] * 6, *fields, "head-0-0", *maps, "save"]


def test_the_address_says_what_is_typed_and_changed_and_a_new_window_shows_the_same(show):
    browser = show(CHANGED)
    values = [field.get_attribute("value") for field in browser.find_elements(By.CSS_SELECTOR, ".field input")]
    assert values == [TEXT, "hello"] and chosen(browser)[:2] == ("2", "1")
    assert text(browser, "#reach-number") == "4" and text(browser, "#effect").startswith("2 of 32 heads are off. ")
    assert [browser.find_element(By.ID, box).is_selected() for box in ("in-keys", "in-values")] == [True, False]
    press(browser, Keys.NULL)
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Next head']").click()
    link, effect = fragment(browser), text(browser, "#effect")
    assert "head=2" in link and "off=2.1%2C3.0" in link
    assert text(show(link), "#effect") == effect
    assert chosen(show("#layer=99&head=x&token=99&k=999&off=<b>"))[:2] == ("3", "0")


# -------------------------------------------------------------------------------------------------------- how it looks


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844), (360, 740)])
def test_nothing_reaches_beyond_the_window(show, width, height):
    browser = show(CHANGED, width=width, height=height)
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + '#' + e.id)"
    )
    assert wide == [] and browser.execute_script("return document.documentElement.scrollWidth") <= width
    small = "return Math.min(...[...document.querySelectorAll('[role=gridcell], button')].map(e => e.clientWidth))"
    assert browser.execute_script(small) >= 24


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_in_light_and_dark(show, dark):
    browser = show(CHANGED, dark=dark)
    ground = luminance(browser, "figure", "backgroundColor")
    for selector in (
        "p",
        "figcaption",
        ".chip small",
        ".chip .wrong",
        ".pill",
        ".field label",
        "b.in-forward",
        "#time",
    ):
        low, high = sorted((ground, luminance(browser, selector, "color")))
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector


def test_on_paper_the_page_is_light_and_nothing_is_cut_off(show):
    browser = show(f"{CHANGED}&theme=dark")
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    set_size(browser, 703, 900, dark=True)  # what the margins leave of A4
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert luminance(browser, "body", "backgroundColor") == 1 and luminance(browser, "p", "color") < 0.2
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 703
        assert not browser.find_element(By.ID, "theme").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
