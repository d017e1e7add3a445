"""The oracle's report in a browser: it opens from disk, and everything can be reached by mouse and by keys.

Chromium runs headless; the page is opened as a file. Every test ends with a look at the browser's console.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_explain_screenshot import find_browser, open_browser, set_size
from test_report import CONFIG, IDS, MASK, model

import nezha_np as nz

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = [
    pytest.mark.skipif(None in find_browser(), reason="there is no Chromium, or no chromedriver"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's own sockets
]

WRONG = "encoder.layer.0.intermediate.intermediate_act_fn"


@pytest.fixture(scope="module")
def browser():
    with open_browser() as window:
        yield window


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """Write the report of a wrong port, of a right one, of one that gives its logits alone, and of one with NaN."""
    folder = tmp_path_factory.mktemp("reports")
    weights = model()
    bundle = nz.oracle.record(weights, IDS, attention_mask=MASK, head="masked_lm", labels=IDS, tolerances="quick")
    with nz.trace() as right:
        nz.masked_lm(weights, **bundle.inputs)
    with nz.trace() as wrong:
        nz.masked_lm(weights, **bundle.inputs, config=CONFIG.replace(hidden_act="gelu_new"))
    logits = {"logits": wrong["cls.predictions.decoder"] * 2}
    nan = {"encoder.layer.1.attention.self.query": right["encoder.layer.1.attention.self.query"].copy()}
    nan["encoder.layer.1.attention.self.query"][1] = np.nan
    for name, theirs in (("wrong", wrong), ("right", right), ("logits", logits), ("nan", nan)):
        (folder / f"{name}.html").write_text(nz.oracle.report(bundle, theirs), encoding="utf-8")
    return folder


@pytest.fixture
def show(browser, pages):
    """Open a page by name; at the end the console must be empty."""

    def open_page(name: str, link: str = "", width: int = 1280, dark: bool = False):
        set_size(browser, width, 900, dark=dark)
        browser.get("about:blank")
        browser.get((pages / f"{name}.html").as_uri() + link)
        browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
        return browser

    browser.get_log("browser")
    yield open_page
    assert browser.get_log("browser") == []


def chosen(window) -> str:
    return window.find_element(By.ID, "map-title").text


def test_the_page_opens_at_the_step_that_the_doctor_names(show):
    window = show("wrong")
    assert chosen(window) == WRONG
    assert "tanh GELU for erf" in window.find_element(By.ID, "findings").text
    assert "def gelu(" in window.find_element(By.ID, "findings").text
    assert "differs" in window.find_element(By.ID, "facts").text


def test_a_click_on_a_step_shows_it_and_the_address_says_so(show):
    window = show("wrong")
    chip = window.find_element(By.CSS_SELECTOR, '[role="radio"][title^="encoder.layer.1.attention.self.probs:"]')
    chip.click()
    assert chosen(window) == "encoder.layer.1.attention.self.probs"
    assert window.current_url.endswith("#step=encoder.layer.1.attention.self.probs")
    assert chip.get_attribute("aria-checked") == "true"
    link = window.current_url.partition("#")[2]
    assert chosen(show("wrong", f"#{link}")) == "encoder.layer.1.attention.self.probs"


def test_arrow_keys_move_through_the_steps_and_the_map(show):
    window = show("wrong")
    window.switch_to.active_element.send_keys(Keys.TAB)
    chip = window.find_element(By.CSS_SELECTOR, '[role="radio"][aria-checked="true"]')
    chip.send_keys(Keys.ARROW_LEFT)
    assert chosen(window) == "encoder.layer.0.intermediate.dense"
    heat = window.find_element(By.ID, "map")
    before = window.find_element(By.ID, "readout").text
    heat.send_keys(Keys.ARROW_RIGHT if "feature 31" not in before else Keys.ARROW_LEFT)
    assert window.find_element(By.ID, "readout").text != before


def test_the_maps_of_texts_and_heads_follow_each_other(show):
    window = show("wrong", "#step=encoder.layer.0.attention.self.probs&map=0")
    assert window.find_element(By.ID, "bar-map").text == "text 0, head 0"
    window.find_element(By.CSS_SELECTOR, '[aria-label="Previous map"]').click()
    assert window.find_element(By.ID, "bar-map").text == "text 1, head 2"
    assert "tokens in brackets are masked" in window.find_element(By.ID, "map-text").text


def test_a_source_of_a_step_is_a_link_to_it(show):
    window = show("wrong", "#step=encoder.layer.0.attention.self.scores")
    links = window.find_elements(By.CSS_SELECTOR, "#definition .links button")
    assert [link.text.rpartition(".")[2] for link in links] == ["content_scores", "position_scores"]
    links[1].click()
    assert chosen(window) == "encoder.layer.0.attention.self.position_scores"


def test_a_right_port_and_one_that_gives_logits_alone_have_a_page_too(show):
    window = show("right")
    assert "right" in window.find_element(By.ID, "verdict").get_attribute("class")
    window = show("logits")
    assert "not given" in window.find_element(By.ID, "diagram-text").text
    assert chosen(window) == "outputs/logits"


def test_numbers_that_are_none_are_called_so(show):
    window = show("nan")
    assert chosen(window) == "encoder.layer.1.attention.self.query"
    facts = window.find_element(By.ID, "facts").text
    assert "it has numbers that are NaN or infinite" in facts and "largest difference" not in facts
    assert window.find_element(By.ID, "bar-map").text == "text 1"


@pytest.mark.parametrize("width", [1280, 768, 360])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(show, width, dark):
    window = show("wrong", width=width, dark=dark)
    assert window.execute_script("return document.documentElement.scrollWidth") <= width


def test_the_theme_can_be_chosen_and_stays_in_the_address(show):
    window = show("wrong")
    for theme in ("light", "dark"):
        window.find_element(By.ID, "theme").click()
        assert window.execute_script("return document.documentElement.dataset.theme") == theme
        assert f"theme={theme}" in window.current_url


def test_every_control_has_a_name_for_screen_readers(show):
    window = show("wrong")
    unnamed = window.execute_script(
        """return [...document.querySelectorAll("button, canvas, svg[role], [tabindex]")]
             .filter((item) => !(item.getAttribute("aria-label") || item.textContent.trim()))
             .map((item) => item.outerHTML)"""
    )
    assert unnamed == []
