"""The page of `nezha_np.explain` in a browser: it opens from disk, and everything can be reached by mouse and by keys.

Chromium runs headless; the page is opened as a file. Every test ends with a look at the browser's console.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from make_explain_screenshot import find_browser, open_browser, set_size
from test_explain import CONFIGS, HOSTILE, THIRTY, model

import nezha_np as nz

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = [
    pytest.mark.skipif(None in find_browser(), reason="there is no Chromium, or no chromedriver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's own sockets
]

TEXT = "房间很[MASK]净。"
SIZES = [(1280, 900), (768, 1000), (360, 740)]
# As many layers and heads as the published models have.
BASE = CONFIGS["nezha"].replace(hidden_size=48, num_attention_heads=12, num_hidden_layers=12)


@pytest.fixture(scope="module")
def browser():
    with open_browser() as window:
        yield window


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """Write a page of each kind."""
    folder = tmp_path_factory.mktemp("pages 页")
    tokenizer = nz.load_tokenizer()
    written = {
        "short": nz.explain(TEXT),
        "thirty": nz.explain(THIRTY),
        "longest": nz.explain("好" * 126),
        "pair": nz.explain("房间很好", pair="很干净"),
        "hostile": nz.explain(" ".join(HOSTILE[:5])),
        **{name: nz.explain(THIRTY, model(config), tokenizer) for name, config in CONFIGS.items()},
        "pruned": nz.explain(TEXT, model(CONFIGS["nezha"]).prune_heads({1: [0, 2]}), tokenizer),
        "no guesses": nz.explain(TEXT, without_language_model(model(CONFIGS["nezha"])), tokenizer),
        "one token": nz.explain("好", nz.load()),
        "base": nz.explain(TEXT, model(BASE), tokenizer),
        "unknown": nz.explain("Nice 龘房\U0001f600", pair="龘"),
        "one unknown": nz.explain("龘很干净"),
    }
    for name, page in written.items():
        (folder / f"{name}.html").write_bytes(page.encode())
    return folder


def without_language_model(weights: nz.Weights) -> nz.Weights:
    return nz.Weights({name: array for name, array in weights.items() if not name.startswith("cls.")}, weights.config)


@pytest.fixture
def show(browser, pages):
    """Open a page by name; at the end the console must be empty."""

    def open_page(name: str, link: str = "", width: int = 1280, height: int = 900, dark: bool = False):
        set_size(browser, width, height, dark=dark)
        browser.get("about:blank")  # else a new link alone would not load the page again
        browser.get((pages / f"{name}.html").as_uri() + link)
        browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        return browser

    browser.get_log("browser")
    yield open_page
    assert browser.get_log("browser") == []


def text(browser, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def chosen(browser) -> tuple[str, str, str]:
    """Read layer, head and token from the bar."""
    return tuple(text(browser, f"#bar-{name}") for name in ("layer", "head", "token"))


def picture(browser, canvas: str) -> str:
    return browser.execute_script(f"return document.getElementById('{canvas}').toDataURL()")


def press(browser, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser) -> str:
    return browser.execute_script("return document.activeElement.id")


def focus(browser, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).focus()", selector)


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    "name", ["short", "thirty", "longest", "pair", "pruned", "no guesses", "one token", "base", "unknown", *CONFIGS]
)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_kind_of_page_opens_and_nothing_reaches_beyond_the_window(show, name, width, height):
    browser = show(name, width=width, height=height)
    assert text(browser, "h1") and len(browser.find_elements(By.CSS_SELECTOR, ".chip")) >= 3
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') || e.matches('svg'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + '#' + e.id)"
    )
    assert wide == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("layer", [0, 5, 11])
def test_with_twelve_layers_of_twelve_heads_no_label_lies_on_another(show, layer, width, height):
    browser = show("base", f"#layer={layer}&head=11", width=width, height=height)
    for chart in ("cosines", "norms"):
        boxes = browser.execute_script(
            "return [...document.querySelectorAll(`#${arguments[0]} text`)].map(e => [e.textContent,"
            " ...['left', 'right', 'top', 'bottom'].map(side => e.getBoundingClientRect()[side])])",
            chart,
        )
        assert len(boxes) > 10
        for index, (label, left, right, top, bottom) in enumerate(boxes):
            for other, *box in boxes[:index]:
                apart = right <= box[0] or box[1] <= left or bottom <= box[2] + 3 or box[3] <= top + 3
                assert apart, f"{label} lies on {other}"
    assert (
        browser.execute_script(
            "return [...document.querySelectorAll('.heads .name')].filter(e => e.getClientRects().length > 1"
            " || e.clientHeight > 24 || e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
        )
        == []
    )


def test_chinese_is_marked_as_chinese_and_nothing_else_is(show):
    browser = show("short")
    marked = "return [...document.querySelectorAll('[lang=zh]')].map(e => e.textContent)"
    found = browser.execute_script(marked)
    assert TEXT in found and "房" in found and "干" in [label[0] for label in found]
    assert "[CLS]" not in found and "layer 0" not in found


def test_a_window_that_is_made_narrow_after_opening_does_not_scroll_sideways(show):
    browser = show("thirty")
    set_size(browser, 360, 740)
    browser.execute_script("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360


def test_the_page_opens_at_the_sharpest_head_and_the_first_gap_or_where_the_link_says(show):
    browser = show("short")
    probs = nz.forward(nz.load(), **nz.encode(nz.load_tokenizer(), TEXT), output_attentions=True).attentions
    sharpest = max(
        ((layer, head) for layer in range(4) for head in range(8)), key=lambda at: probs[at[0]][0, at[1]].max(-1).mean()
    )
    assert chosen(browser) == (*map(str, sharpest), "[MASK]")
    assert chosen(show("short", "#layer=1&head=2&token=3")) == ("1", "2", "很")
    assert chosen(show("short", "#layer=99&head=99&token=99")) == ("3", "7", "[SEP]")
    assert chosen(show("short", "#layer=-1&head=x&token=")) == chosen(show("short", "#<script>"))


def test_a_text_that_looks_like_html_runs_nothing(show):
    browser = show("hostile")
    assert "</script><script>alert(1)</script>" in text(browser, "h1")
    assert browser.execute_script("return document.images.length + document.scripts.length") == 2
    assert browser.title.startswith("</script><script>alert(1)")


def test_the_policy_lets_no_other_script_run(show):
    browser = show("short")
    browser.execute_script(
        "const made = document.createElement('div'); made.innerHTML = '<img src=x onerror=\"window.ran = 1\">';"
        "document.body.append(made); const script = document.createElement('script');"
        "script.textContent = 'window.ran = 1'; document.body.append(script)"
    )
    assert browser.execute_script("return window.ran") is None
    messages = [entry["message"] for entry in browser.get_log("browser")]
    assert messages and all("Content Security Policy" in message for message in messages)


# ---------------------------------------------------------------------------------------------------------- the choices


@pytest.mark.parametrize("name", ["short", *CONFIGS])
def test_every_layer_and_head_can_be_clicked_and_has_a_map_of_its_own(show, name):
    browser = show(name)
    cells = [cell.get_attribute("id") for cell in browser.find_elements(By.CSS_SELECTOR, "[role=gridcell]")]
    maps = set()
    for cell in cells:
        element = browser.find_element(By.ID, cell)
        ActionChains(browser).scroll_to_element(element).click(element).perform()
        assert chosen(browser)[:2] == tuple(cell.split("-")[1:])
        assert element.get_attribute("aria-selected") == "true"
        maps.add(picture(browser, "map-content"))
    assert len(maps) == len(cells) > 0
    assert len(browser.find_elements(By.CSS_SELECTOR, "[aria-selected=true][role=gridcell]")) == 1


def test_the_arrow_keys_walk_through_all_layers_and_heads(show):
    browser = show("short", "#layer=0&head=0")
    focus(browser, "#head-0-0")
    seen = {focused(browser)}
    for layer in range(4):
        for _ in range(7):
            press(browser, Keys.ARROW_RIGHT if layer % 2 == 0 else Keys.ARROW_LEFT)
            seen.add(focused(browser))
        press(browser, Keys.ARROW_DOWN)
        seen.add(focused(browser))
    assert seen == {f"head-{layer}-{head}" for layer in range(4) for head in range(8)}
    press(browser, Keys.END)
    assert chosen(browser)[:2] == ("3", "7")
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)  # at the edge nothing moves
    assert chosen(browser)[:2] == ("3", "7") and focused(browser) == "head-3-7"
    press(browser, Keys.HOME)
    assert chosen(browser)[:2] == ("3", "0")


def test_a_layer_with_fewer_heads_takes_the_last_of_them(show):
    browser = show("pruned", "#layer=0&head=2")
    focus(browser, "#head-0-2")
    press(browser, Keys.ARROW_DOWN)
    assert chosen(browser)[:2] == ("1", "0") and focused(browser) == "head-1-0"


def test_the_steppers_of_the_bar_go_round_by_mouse_and_by_keys(show):
    browser = show("short", "#layer=3&head=0&token=0")
    for name, after in (("layer", "0"), ("head", "1"), ("token", "房")):
        browser.find_element(By.CSS_SELECTOR, f"[aria-label='Next {name}']").click()
        assert text(browser, f"#bar-{name}") == after
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)  # the token's button has the focus
    assert chosen(browser) == ("0", "1", "间")
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Previous layer']").click()
    assert chosen(browser)[0] == "3"


def test_a_token_is_chosen_by_its_chip_by_arrow_keys_and_in_the_pictures(show):
    browser = show("short")
    browser.find_elements(By.CSS_SELECTOR, ".chip")[5].click()
    assert chosen(browser)[2] == "净" and text(browser, "#strips-title") == "The vector of 净"
    press(browser, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert chosen(browser)[2] == "很"
    press(browser, Keys.HOME)
    assert chosen(browser)[2] == "[CLS]"
    assert text(browser, "#guesses-title").startswith("[CLS]: the model says ")
    row = browser.find_elements(By.CSS_SELECTOR, "#overview tr")[5]
    ActionChains(browser).scroll_to_element(row).click(row).perform()
    assert chosen(browser)[2] == "[MASK]" and text(browser, "#guesses-title") == "[MASK]: the model says 干 (0.984)"
    line = browser.find_elements(By.CSS_SELECTOR, "#lines rect")[1]
    ActionChains(browser).scroll_to_element(line).click(line).perform()
    assert chosen(browser)[2] == "房"


@pytest.mark.parametrize("name", ["map-content", "map-position", "map-probs"])
def test_in_a_map_keys_and_mouse_choose_a_pair_of_tokens_whose_numbers_are_read_out(show, name):
    browser = show("short", "#layer=1&head=2&token=5")
    with nz.trace() as t:
        nz.forward(nz.load(), **nz.encode(nz.load_tokenizer(), TEXT))
    at = "encoder.layer.1.attention.self."
    content, position = (t[f"{at}{part}_scores"][0, 2] / 32**0.5 for part in ("content", "position"))

    def told(token: int, key: int) -> str:
        numbers = (content[token, key], position[token, key], content[token, key] + position[token, key])
        c, p, both = (f"{number:.2f}".replace("-", "−") for number in numbers)
        distance = f"{key - token:+d}".replace("-", "−").replace("+0", "0")
        tokens = ["[CLS]", *"房间很", "[MASK]", *"净。", "[SEP]"]
        return (
            f"{tokens[token]} → {tokens[key]} (distance {distance}): content {c} + position {p} = {both} "
            f"→ probability {t[at + 'probs'][0, 2][token, key]:.3f}"
        )

    first = int(t[at + "probs"][0, 2][5].argmax())
    assert text(browser, "#readout") == told(5, first)
    focus(browser, f"#{name}")
    press(browser, Keys.ARROW_UP)
    assert text(browser, "#readout") == told(4, first)
    press(browser, *[Keys.ARROW_LEFT] * 8)
    assert text(browser, "#readout") == told(4, 0)
    canvas = browser.find_element(By.ID, name)
    ActionChains(browser).scroll_to_element(canvas).perform()
    before = picture(browser, name)
    offset = (40, 70)  # from the middle
    cell = browser.execute_script(  # which cell is there: the page's own answer
        "const canvas = document.getElementById(arguments[0]), box = canvas.getBoundingClientRect();"
        "const [x, y] = [box.left + box.width / 2, box.top + box.height / 2].map(Math.floor);"  # as the driver rounds
        "return canvas.place({clientX: x + arguments[1], clientY: y + arguments[2]})",
        name,
        *offset,
    )
    ActionChains(browser).move_to_element_with_offset(canvas, *offset).perform()
    assert text(browser, "#readout") == told(cell["row"], cell["column"]) and picture(browser, name) == before
    ActionChains(browser).click().perform()
    assert text(browser, "#readout") == told(cell["row"], cell["column"]) and picture(browser, name) != before


def test_the_strips_and_the_bars_are_those_of_the_chosen_token(show):
    browser = show("short", "#layer=2&head=3&token=5")
    with nz.trace() as t:
        nz.forward(nz.load(), **nz.encode(nz.load_tokenizer(), TEXT))
    parts = ("word", "word_embeddings"), ("token type", "token_type_embeddings"), ("sum", "sum"), ("norm", "LayerNorm")
    strips = [strip.get_attribute("aria-label") for strip in browser.find_elements(By.CSS_SELECTOR, "#strips canvas")]
    norms = [(part, np.linalg.norm(t[f"embeddings.{name}"][0, 5])) for part, name in parts]
    assert strips == [f"{part}: 256 features, norm {norm:.2f}" for part, norm in norms]
    content, position = (
        np.linalg.norm(t[f"encoder.layer.2.attention.self.{part}_context"][0, 3, 5]) for part in ("content", "position")
    )
    label = browser.find_element(By.ID, "context").get_attribute("aria-label")
    assert label == f"净: content {content:.2f}, position {position:.2f}"


def test_a_finger_chooses_a_pair_too(show):
    browser = show("short", width=360, height=740)
    browser.execute_script("document.getElementById('map-probs').scrollIntoView({block: 'center'})")
    box = browser.execute_script(
        "const b = document.getElementById('map-probs').getBoundingClientRect(); return [b.right - 8, b.bottom - 8]"
    )
    for kind, points in (("touchStart", [{"x": box[0], "y": box[1]}]), ("touchEnd", [])):
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    browser.execute_script("return new Promise(done => setTimeout(done, 400))")
    assert text(browser, "#readout").startswith("[SEP] → [SEP] (distance 0): ")


def test_lines_and_small_maps_show_both_parts_or_one_of_them(show):
    browser = show("short", "#layer=2&head=1&token=4")
    seen = set()
    for part in ("both", "content", "position"):
        browser.find_element(By.CSS_SELECTOR, f"input[value={part}]").click()
        small = browser.execute_script("return document.querySelector('#head-2-1 canvas').toDataURL()")
        seen.add((text(browser, "#lines-text"), small))
        assert browser.find_elements(By.CSS_SELECTOR, f"#lines path[stroke='var(--{part})']")
    assert len(seen) == 3
    press(browser, Keys.ARROW_LEFT)  # from position back to content
    assert "content alone" in text(browser, "#lines-text")


@pytest.mark.parametrize("name", ["short", "nezha", "nezha, a decoder", "bert, relative_key"])
def test_one_part_alone_is_its_softmax_and_the_bar_says_how_much_each_part_makes(show, name):
    browser = show(name, "#layer=0&head=1&token=3")
    sentence = TEXT if name == "short" else THIRTY
    weights = nz.load() if name == "short" else model(CONFIGS[name])
    with nz.trace() as t:
        nz.forward(weights, **nz.encode(nz.load_tokenizer(), sentence))
    tokens = [chip.text for chip in browser.find_elements(By.CSS_SELECTOR, ".chip b")]
    seen = np.tri(len(tokens), dtype=bool) | (not weights.config.is_decoder)
    squares = {}
    for part in ("content", "position"):
        scores = t[f"encoder.layer.0.attention.self.{part}_scores"][0, 1].astype(float) / weights.config.head_size**0.5
        browser.find_element(By.CSS_SELECTOR, f"input[value={part}]").click()
        exp = np.exp(scores[3]) * seen[3]
        probs = exp / exp.sum()
        first, second = np.argsort(-probs)[:2]
        told = [f"{tokens[key]} ({probs[key]:.2f})" for key in (first, second)]
        assert text(browser, "#lines-text").endswith(f"{tokens[3]} looks most at {told[0]}, then at {told[1]}.")
        means = (scores * seen).sum(axis=1, keepdims=True) / seen.sum(axis=1, keepdims=True)
        squares[part] = (((scores - means) * seen) ** 2).sum()
    share = 100 * squares["position"] / (squares["content"] + squares["position"])
    assert f"position makes {share:.0f} % of the differences" in text(browser, "#share")


def test_a_decoders_curve_and_readout_know_that_later_keys_are_hidden(show):
    browser = show("nezha, a decoder", "#layer=0&head=0&token=3")
    liked = re.search(r"likes distance (\S+) best", text(browser, "#share")).group(1)
    assert int(liked.replace("−", "-")) <= 0
    assert "next token" in text(browser, "#lens-text")


def test_the_tab_key_stops_once_at_each_group_and_the_focus_is_seen(show):
    browser = show("short")
    browser.execute_script("document.body.tabIndex = -1; document.body.focus()")
    stops = []
    for _ in range(40):
        press(browser, Keys.TAB)
        stop = browser.execute_script(
            "const e = document.activeElement; if (e === document.body) return null;"
            "const s = getComputedStyle(e.matches('fieldset input') ? e.parentElement : e);"
            "return [e.closest('#steppers') ? 'bar' : e.closest('[id]').id, s.outlineStyle !== 'none']"
        )
        if stop is None or (stop[0] != "bar" and stop[0] in stops):
            break
        assert stop[1], f"{stop[0]} has the focus, and nothing shows it"
        stops.append(stop[0])
    expected = ["theme", *["bar"] * 6, "chips", "parts", "head-2-4", "map-content", "map-position", "map-probs", "lens"]
    assert stops == expected


# ------------------------------------------------------------------------------------------------ the address of a view


def fragment(browser) -> str:
    return browser.execute_script("return location.hash")


def wait(browser, milliseconds: int) -> None:
    browser.execute_script("return new Promise(done => setTimeout(done, arguments[0]))", milliseconds)


def view(browser) -> tuple[object, ...]:
    """Read all that is chosen, as it is shown."""
    part = browser.find_element(By.CSS_SELECTOR, "#parts input:checked").get_attribute("value")
    return (*chosen(browser), part, text(browser, "#readout"), text(browser, "#lines-text"))


def test_the_address_says_what_is_chosen_and_a_new_window_shows_the_same(show):
    browser = show("short")
    opened = view(browser)
    assert fragment(browser) == ""
    browser.find_elements(By.CSS_SELECTOR, ".chip")[3].click()
    browser.find_element(By.ID, "head-1-3").click()
    assert fragment(browser) == "#layer=1&head=3&token=3"
    focus(browser, "#map-probs")
    strongest = text(browser, "#readout")
    press(browser, Keys.ARROW_LEFT)
    browser.execute_script("document.querySelector('input[value=position]').click()")
    assert "&part=position" in fragment(browser) and text(browser, "#readout") == strongest
    focus(browser, "#map-probs")
    press(browser, Keys.ARROW_LEFT)
    link = fragment(browser)
    assert (
        re.fullmatch(r"#layer=1&head=3&token=3&key=\d&part=position", link) and text(browser, "#readout") != strongest
    )
    seen = view(browser)
    assert view(show("short", link)) == seen != opened
    browser.refresh()
    assert view(browser) == seen and fragment(browser) == link
    assert view(show("short")) == opened
    assert view(show("bert, relative_key", "#part=nothing"))[3] == "both"


def test_the_back_button_goes_through_the_choices_and_a_run_of_quick_ones_is_one_step(show):
    browser = show("short", "#layer=0&head=1&token=2")
    first = view(browser)
    browser.find_element(By.ID, "head-2-2").click()
    second = view(browser)
    wait(browser, 1100)
    focus(browser, "#head-2-2")
    browser.execute_script(  # as of a key that is held down
        "for (let i = 0; i < 40; i++) document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key: ['ArrowUp', 'ArrowDown'][i % 2], bubbles: true}))"
    )
    press(browser, Keys.ARROW_RIGHT)
    third = view(browser)
    assert chosen(browser)[:2] == ("2", "3")
    for expected in (second, first):
        browser.back()
        wait(browser, 100)
        assert view(browser) == expected
    for expected in (second, third):
        browser.forward()
        wait(browser, 100)
        assert view(browser) == expected


def test_the_theme_is_kept_in_the_address_and_is_no_step_of_the_back_button(show):
    browser = show("short", "#layer=0&head=1&token=2")
    steps = browser.execute_script("return history.length")
    browser.find_element(By.ID, "theme").click()
    browser.find_element(By.ID, "theme").click()
    assert fragment(browser) == "#layer=0&head=1&token=2&theme=dark"
    assert browser.execute_script("return history.length") == steps
    browser.refresh()
    assert luminance(browser, "body", "backgroundColor") < 0.1
    browser.find_element(By.ID, "theme").click()
    assert fragment(browser) == "#layer=0&head=1&token=2"


# ---------------------------------------------------------------------------------------- unknown characters, two steps


def test_an_unknown_token_says_which_character_it_was(show):
    browser = show("unknown", "#token=3")
    told = "The vocabulary has no piece for 龘 and \U0001f600: the model gets [UNK] in their place, and cannot tell"
    assert text(browser, "#unknown-text").startswith(told)
    chips = browser.find_elements(By.CSS_SELECTOR, ".chip")
    assert [chip.text.split("\n") for chip in chips[3:6]] == [
        ["[UNK]", "1", "龘"],
        ["房", "1817"],
        ["[UNK]", "1", "\U0001f600"],
    ]
    assert [chip.get_attribute("title") for chip in chips[:6]] == [
        *("", "for “N” in the text", "", "for “龘” in the text", "", "for “\U0001f600” in the text")
    ]
    assert chips[3].get_attribute("aria-label") == "[UNK], for “龘” in the text, id 1, token type 0"
    assert text(browser, "#strips-title") == "The vector of [UNK] for 龘"
    assert text(browser, "#guesses-title").startswith("[UNK] for 龘: the model says ")
    assert text(browser, "#readout").startswith("[UNK] for 龘 → ")
    assert "[UNK] for 龘 looks most at " in text(browser, "#lines-text")
    row = browser.find_elements(By.CSS_SELECTOR, "#overview tbody th")[5]
    assert row.get_attribute("title") == "for “\U0001f600” in the text"
    told = "The vocabulary has no piece for 龘: the model gets [UNK] in its place, and cannot tell what the text says "
    assert text(show("one unknown"), "#unknown-text") == f"{told}there."
    assert not show("short").find_element(By.ID, "unknown-text").is_displayed()


def test_the_steps_of_a_layer_are_told_in_words_and_drawn_as_bars(show):
    browser = show("short", "#layer=1&head=0&token=4")
    batch = nz.encode(nz.load_tokenizer(), TEXT)
    with nz.trace() as t:
        states = nz.forward(nz.load(), **batch, output_hidden_states=True).hidden_states
    at = "encoder.layer.1."
    x, y, z = states[1][0, 4], t[at + "attention.output.LayerNorm"][0, 4], states[2][0, 4]

    def moved(before, added, after):
        ratio = np.linalg.norm(t[at + added][0, 4]) / np.linalg.norm(before)
        angle = np.degrees(np.arccos(before @ after / np.linalg.norm(before) / np.linalg.norm(after)))
        return f"{ratio:.2f}", f"{ratio:.2f} times as long as the token's own and turns it by {angle:.0f}°"

    attention, forward = moved(x, "attention.output.dense", y), moved(y, "output.dense", z)
    assert text(browser, "#steps-text") == (
        f"In layer 1, for [MASK]: attention adds a vector {attention[1]}; "
        f"the feed-forward network adds a vector {forward[1]}."
    )
    told = f"attention {attention[0]}, feed-forward {forward[0]}"
    for picture_of, name in (("layers", "layer 1"), ("tokens", "[MASK]")):
        label = browser.find_element(By.ID, f"steps-{picture_of}").get_attribute("aria-label")
        assert label == f"{name}: {told}"
    bars = "return document.querySelectorAll(`#steps-${arguments[0]} rect[fill^=var]`).length"
    assert [browser.execute_script(bars, name) for name in ("layers", "tokens")] == [2 * 4, 2 * 8]
    for name, index, after in (("layers", 3, ("3", "0", "[MASK]")), ("tokens", 1, ("3", "0", "房"))):
        bar = browser.find_elements(By.CSS_SELECTOR, f"#steps-{name} rect[fill=transparent]")[index]
        ActionChains(browser).scroll_to_element(bar).click(bar).perform()
        assert chosen(browser) == after


def test_the_footer_names_an_array_that_the_trace_has(show):
    footer = text(show("short"), "footer")
    name = re.search(r"Names like (\S+), below the pictures, are those under which nezha_np.trace\(\) records", footer)[
        1
    ]
    with nz.trace() as t:
        nz.forward(nz.load(), **nz.encode(nz.load_tokenizer(), TEXT))
    assert name in t
    shown = text(show("short", "#layer=0&head=0"), "figure:has(#map-probs) .where")
    assert shown == f"{name}[0, 0]"


# ------------------------------------------------------------------------------------------------------------- on paper


@pytest.mark.parametrize("name", ["short", "longest", "base", "unknown"])
@pytest.mark.parametrize("paper", [(8.27, 11.69), (8.5, 11.0)], ids=["A4", "letter"])
def test_on_paper_nothing_is_dark_or_cut_off_and_what_is_chosen_is_said(show, name, paper):
    browser = show(name, "#layer=1&head=0&token=2&theme=dark", width=500)
    before = picture(browser, "map-probs")
    browser.execute_script(  # look while the page is laid out for paper
        "window.addEventListener('beforeprint', () => { const c = document.getElementById('map-probs');"
        "const pixel = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d');"
        "pixel.drawImage(c, c.width - 12, c.height - 12, 1, 1, 0, 0, 1, 1);"
        "window.corner = [...pixel.getImageData(0, 0, 1, 1).data];"
        "window.fine = c.width / parseFloat(c.style.width) })"
    )
    size = {"paperWidth": paper[0], "paperHeight": paper[1]}
    browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, **size})
    assert browser.execute_script("return window.fine") == pytest.approx(3, abs=0.02)
    assert min(browser.execute_script("return window.corner")) > 60  # not transparent, no dark panel
    assert picture(browser, "map-probs") == before  # afterwards all is as it was
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    width = round((paper[0] - 24 / 25.4) * 96)  # what the margins leave
    set_size(browser, width, 900, dark=True)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert luminance(browser, "body", "backgroundColor") == 1 and luminance(browser, "p", "color") < 0.2
        wide = browser.execute_script(
            "return [...document.querySelectorAll('body *')].filter(e => !e.closest('svg') || e.matches('svg'))"
            ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.tagName + '#' + e.id)"
        )
        assert wide == []
        hidden = browser.execute_script(
            "return [...document.querySelectorAll('.scroll, figure')].filter(e => e.scrollHeight > e.clientHeight + 2)"
            ".map(e => e.outerHTML.slice(0, 80))"
        )
        assert hidden == []
        tall = "return Math.max(...[...document.querySelectorAll('svg, canvas')].map(e => e.clientHeight))"
        assert browser.execute_script(tall) < (paper[1] - 24 / 25.4) * 96 - 190  # beside its words, and those before it
        assert not browser.find_element(By.ID, "theme").is_displayed()
        assert chosen(browser)[:2] == ("1", "0")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


# ------------------------------------------------------------------------------------------- what the families have not


def test_a_family_without_a_position_part_says_so_and_draws_none(show):
    for name in ("bert, absolute", "convbert"):
        browser = show(name)
        assert "no position part" in text(browser, "#attention-text")
        for missing in ("#map-position", "#curve", "#context", "#parts"):
            assert not browser.find_elements(By.CSS_SELECTOR, missing)
        assert bool(browser.find_elements(By.CSS_SELECTOR, "#kernels")) == (name == "convbert")
        assert "position " not in text(browser, "#readout")


def test_weights_without_a_language_model_head_are_told_so(show):
    browser = show("no guesses")
    assert "no language-model head" in text(browser, "#lens-text") and not browser.find_elements(By.ID, "guesses")


# ------------------------------------------------------------------------------------------------------ light and dark


def luminance(browser, selector: str, what: str) -> float:
    colour = browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, what
    )
    values = [int(value) / 255 for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return sum(factor * value for factor, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_light_and_dark_follow_the_system_and_text_stands_out_in_both(show, dark):
    browser = show("short", dark=dark)
    assert (luminance(browser, "body", "backgroundColor") < 0.1) == dark
    for selector in (
        "p",
        "figcaption",
        "code",
        "b.in-content",
        "b.in-position",
        "b.in-both",
        "b.in-forward",
        ".chip small",
        "footer p",
    ):
        behind = "figure" if selector in ("figcaption", "code", "b.in-content") else "body"
        levels = sorted((luminance(browser, selector, "color"), luminance(browser, behind, "backgroundColor")))
        assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5, selector
    for cell in browser.find_elements(By.CSS_SELECTOR, "#guesses td")[::6]:
        browser.execute_script("document.querySelectorAll('.probe').forEach(e => e.classList.remove('probe'))")
        browser.execute_script("arguments[0].classList.add('probe')", cell)
        levels = sorted(luminance(browser, ".probe", what) for what in ("color", "backgroundColor"))
        assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5


def test_the_button_overrules_the_system_and_redraws_the_maps(show):
    browser = show("short", dark=True)
    button = browser.find_element(By.ID, "theme")
    drawn = {}
    for expected in ("light", "dark", "auto"):
        button.click()
        assert button.get_attribute("aria-label") == f"Theme: {expected}"
        drawn[expected] = picture(browser, "map-probs")
        assert (luminance(browser, "body", "backgroundColor") < 0.1) == (expected != "light")
    assert drawn["auto"] == drawn["dark"] != drawn["light"]
    assert (luminance(show("short", "#theme=light", dark=True), "body", "backgroundColor") < 0.1) is False


def test_nothing_moves_where_less_motion_is_asked_for(show):
    browser = show("short")
    timing = "return getComputedStyle(document.querySelector('.chip')).transitionDuration"
    assert browser.execute_script(timing) != "0s"
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    assert browser.execute_script(timing) == "0s"


# --------------------------------------------------------------------------------------------------- for screen readers


def test_every_picture_and_every_control_has_a_name(show):
    for name in ("short", "convbert"):
        browser = show(name)
        nameless = browser.execute_script(
            "return [...document.querySelectorAll('button, nav, [role]:not([role=row], [role=rowheader],"
            "[role=columnheader])')].filter(e => !(e.getAttribute('aria-label') || '').trim()).map(e => e.outerHTML)"
        )
        assert nameless == []
        identifiers = browser.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
        assert len(identifiers) == len(set(identifiers))
        referred = browser.execute_script(
            "return [...document.querySelectorAll('[aria-labelledby], [aria-describedby]')]"
            ".map(e => e.getAttribute('aria-labelledby') || e.getAttribute('aria-describedby'))"
        )
        assert set(referred) <= set(identifiers)
