"""The documentation: its code runs, its links are valid, its two languages say the same, the site builds.

What the site looks like in a browser is at the end; Chromium runs headless, on pages of a server of this machine.
"""

import ast
import functools
import http.server
import importlib.util
import json
import re
import shlex
import subprocess
import sys
import threading
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock
from urllib.parse import unquote, urlsplit

import pytest
from make_explain_screenshot import find_browser, open_browser, set_size

import nezha_np as nz
import nezha_np.cli

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
COPIES = {DOCS / "_build", DOCS / "notebooks"}  # written by the build of the site
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "README.zh.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if not COPIES & set(page.parents)),
]
# Pages whose code runs here; the code of other pages runs in the tests of their subjects.
RUN_HERE = [
    REPOSITORY / "README.zh.md",
    *(DOCS / f"{name}.md" for name in ("start", "start.zh", "how_nezha_works", "design", "command_line")),
    *sorted((DOCS / "howto").glob("*.md")),
]
NEEDS_A_GPU = "run_on_a_gpu.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def records_a_bundle(page):
    """Say whether the code of a page records a golden bundle, which runs its pass 25 times, for the tolerances."""
    return "oracle.record(" in page.read_text(encoding="utf-8")


def name_of(page):
    return page.relative_to(REPOSITORY).as_posix()


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, *kinds):
    return [(kind, code) for kind, code in BLOCK.findall(text_of(page)) if kind in kinds]


def prose(page):
    """Return a page without its code."""
    return re.sub(r"`[^`\n]+`", "", BLOCK.sub("", text_of(page)))


def anchors(page):
    """List the anchors of a page's headings, as links spell them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text_of(page)), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# ------------------------------------------------------------------------------------------------------ as written


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_and_picture_of_a_page_exists(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text_of(page))):
        if urlsplit(target).scheme:
            assert target.startswith("https://"), target
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        assert file.exists(), f"{target}: there is no such file"
        assert not fragment or file.suffix != ".md" or fragment in anchors(file), f"{target}: no such heading"


@pytest.fixture
def a_folder_to_work_in(tmp_path, monkeypatch):
    """Change to a folder with the files that the pages use: a checkpoint, a file of texts."""
    monkeypatch.chdir(tmp_path)
    nz.load().save("my_model")
    nz.save_vocabulary(nz.load_tokenizer(), "my_model")
    Path("texts.txt").write_text("房间很干净。\n性价比很高\n早餐很好吃\n", encoding="utf-8")
    Path("gaps.txt").write_text("房间很[MASK]净。\n", encoding="utf-8")
    with mock.patch.dict(nz.families.FAMILIES):  # a page may register a family
        yield tmp_path


def run_command(command):
    program, *arguments = shlex.split(command, comments=True)
    if program == "nezha-np":
        assert nezha_np.cli.main(arguments) == 0, command
    elif program == "mpiexec":  # tests/test_mpi.py runs several processes
        assert nezha_np.cli.main(arguments[arguments.index("nezha_np") + 1 :]) == 0, command
    else:
        assert program in ("pip", "pytest"), command  # `.ci/run` runs these


def run_commands(code):
    for command in re.split(r"\n|&&", code.replace("\\\n", " ").strip()):
        run_command(command.strip())


@pytest.mark.filterwarnings("ignore:.* drawn with seed:nezha_np.HeadWarning")  # the heads of some pages
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.exhaustive] * records_a_bundle(page)) for page in RUN_HERE],
    ids=name_of,
)
def test_the_code_and_the_commands_of_a_page_run_from_top_to_bottom(page, a_folder_to_work_in, capsys):
    if page.name == NEEDS_A_GPU:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy.cuda.is_available():
            pytest.skip("there is no GPU")
    names, left_out = {"__name__": "page"}, []
    for kind, code in blocks(page, "python", "sh"):
        library = re.search(r"^(?:import|from) (torch|jax|fastapi|ray|pyspark)\b", code, flags=re.MULTILINE)
        if kind == "sh":
            run_commands(code)
        elif library and importlib.util.find_spec(library[1]) is None:
            left_out.append(library[1])
        else:
            exec(compile(code, name_of(page), "exec"), names)
    if left_out:
        pytest.skip(f"not installed: {' and '.join(left_out)}; all other blocks ran")


@pytest.mark.parametrize("page", ["README.zh.md", "docs/start.md", "docs/start.zh.md"])
def test_a_page_shows_what_its_first_command_prints(page, capsys):
    [(_, shown)] = blocks(REPOSITORY / page, "text")
    assert nezha_np.cli.main(["fill-mask", "房间很[MASK]净。"]) == 0
    assert capsys.readouterr().out == shown


def test_what_the_start_page_says_in_comments_is_what_comes_out(a_folder_to_work_in):
    names = {}
    exec("".join(code for _, code in blocks(DOCS / "start.md", "python")), names)
    assert names["out"].logits.shape == (1, 8, 7000) and names["content"].shape == (1, 8, 8, 8)
    assert names["tok"].id_to_token(names["best"]) == "干"
    assert f"{float(names['out'].loss):.2f}" == "0.02"


def test_what_the_page_on_fine_tuning_says_comes_out(a_folder_to_work_in, capsys):
    page = DOCS / "howto" / "fine_tune.md"
    names = {}
    (making, using, *_), commands = blocks(page, "python"), [code for _, code in blocks(page, "sh")]
    exec(making[1], names)
    run_commands(commands[0])
    assert capsys.readouterr().err.splitlines()[-1].endswith("accuracy 1")
    exec(using[1], names)
    assert names["weights"].config.id2label[int(names["logits"][0].argmax())] == "good"
    run_commands(commands[2])
    size = sum(file.stat().st_size for file in Path("changes").iterdir() if file.is_file())
    step = sum(file.stat().st_size for folder in Path("changes").glob("step-*") for file in folder.iterdir())
    assert f"{size / 1e6:.1f} MB of 8" in text_of(page) and f"shipped model {step / 1e6:.0f} MB" in text_of(page)


@pytest.mark.exhaustive
def test_what_the_page_on_classes_says_comes_out(a_folder_to_work_in):
    names = {}
    exec("".join(code for _, code in blocks(DOCS / "howto" / "classify.md", "python")), names)
    classify, tok, classifier = nz.sequence_classification, names["tok"], names["classifier"]
    logits = classify(classifier, **nz.encode(tok, ["太脏了，非常失望。", "房间很旧"])).logits
    assert [classifier.config.id2label[int(row.argmax())] for row in logits] == ["差", "好"]
    assert classifier.config.architectures == ("NezhaForSequenceClassification",)


# --------------------------------------------------------------------------------------------------- two languages

TRANSLATIONS = [("README.md", "README.zh.md")]
TRANSLATIONS += [
    (f"docs/{name}.md", f"docs/{name}.zh.md") for name in ("index", "start", "how_nezha_works", "notebooks")
]


@pytest.mark.parametrize(("english", "chinese"), TRANSLATIONS)
def test_the_chinese_page_has_the_code_and_the_commands_of_the_english_one(english, chinese):
    def code_of(page):  # comments are translated, and are not in the syntax tree
        return [ast.dump(ast.parse(code)) for _, code in blocks(REPOSITORY / page, "python")]

    def commands_of(page):
        lines = "".join(code for _, code in blocks(REPOSITORY / page, "sh", "")).splitlines()
        return {line.partition("#")[0].strip() for line in lines}

    assert code_of(chinese) == code_of(english)
    assert commands_of(chinese) >= commands_of(english)


@pytest.mark.parametrize(("english", "chinese"), TRANSLATIONS)
def test_the_chinese_page_has_the_numbers_and_the_links_of_the_english_one(english, chinese):
    def numbers_of(page):
        return set(re.findall(r"(?<![\w.])\d[\d.,]*\d|(?<![\w.])\d", prose(page).replace("4 million", "")))

    def links_of(page):  # to other pages, of whichever language
        return set(re.findall(r"\]\(([^)#\s][^)\s]*)\)", text_of(REPOSITORY / page).replace(".zh.", ".")))

    assert numbers_of(REPOSITORY / english) <= numbers_of(REPOSITORY / chinese)
    assert links_of(english) <= links_of(chinese)


@pytest.mark.parametrize(("english", "chinese"), TRANSLATIONS)
def test_the_chinese_page_has_the_formulas_and_the_headings_of_the_english_one(english, chinese):
    def formulas_of(page):  # those of lines of their own, in their order, and those in lines
        text = prose(REPOSITORY / page)
        own_lines = re.findall(r"\$\$.*?\$\$", text, flags=re.DOTALL)
        return own_lines, set(re.findall(r"(?<!\$)\$[^$\n]+\$", text))

    assert formulas_of(chinese) == formulas_of(english)
    if english != "docs/index.md":  # which says what is in which language
        assert len(anchors(REPOSITORY / chinese)) == len(anchors(REPOSITORY / english))


def test_a_chinese_page_links_to_chinese_pages_where_there_are_any():
    for page in sorted(DOCS.glob("*.zh.md")):
        links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)) if not urlsplit(link).scheme]
        own = page.name.replace(".zh.", ".")
        for link in links:
            path = page.parent / link.partition("#")[0]
            there = path.suffix in (".md", ".ipynb") and path.with_suffix(f".zh{path.suffix}").exists()
            assert link == own or not there, f"{page.name}: {link}"


def test_the_chinese_tables_of_what_is_supported_say_the_same():
    def rows_of(page, yes, no):
        rows = re.findall(r"^\| ([^|]*`[^|]*) \|(.*)\|$", text_of(REPOSITORY / page), flags=re.MULTILINE)
        cells = [(re.findall(r"`[^`]+`", first), [cell.strip() for cell in rest.split("|")]) for first, rest in rows]
        return [
            (names, [cell == yes for cell in rest if cell in (yes, no)])
            for names, rest in cells
            if {yes, no} & set(rest)
        ]

    english, chinese = rows_of("README.md", "yes", "no"), rows_of("README.zh.md", "支持", "不支持")
    assert len(english) > 20 and chinese == english


# ------------------------------------------------------------------------------------- the glossary, the bibliography


def test_every_name_that_the_glossary_gives_to_the_package_is_in_the_package():
    files = sorted((REPOSITORY / "nezha_np").rglob("*.py"))
    code = "".join(text_of(path) for path in files)
    names = [
        name
        for row in re.findall(r"^\|.*\|(.*)\|$", text_of(DOCS / "glossary.md"), flags=re.MULTILINE)
        for name in re.findall(r"`([\w./ -]+)`", row)
    ]
    assert len(names) > 80
    for name in names:
        if name.endswith(".py"):
            assert [path for path in files if path.as_posix().endswith(f"/{name}")], name
        else:
            assert re.search(rf"\b{re.split('[. ]', name)[-1].lstrip('-')}\b", code), name


def test_the_bibliography_has_the_papers_that_the_code_cites_and_the_numbers_of_its_links():
    bibliography = text_of(DOCS / "bibliography.md")
    for number, linked in re.findall(r"\[([\d.]+)\]\(https://arxiv\.org/abs/([\d.]+)\)", bibliography):
        assert number == linked and bibliography.count(f"[{number}]") == 1
    code = "".join(text_of(path) for path in sorted((REPOSITORY / "nezha_np").rglob("*.py")))
    author = r"\b([A-Z][a-z]+)(?: et al\.|,? (?:[A-Z][a-z]+ )?(?:&|and) [A-Z][a-z]+)"
    cited = set(re.findall(author + r",? \(?((?:19|20)\d\d)\b", code))
    assert len(cited) > 15
    for name, year in cited:
        assert re.search(rf"^\| {name}\b.* {year}, ", bibliography, flags=re.MULTILINE), f"{name} {year}"
    for number in re.findall(r"arxiv\.org/abs/([\d.]+\d)", code):
        assert f"[{number}]" in bibliography, number


# ------------------------------------------------------------------------------------------------------- the design


def test_the_design_names_every_room_and_every_file_of_the_mechanism():
    text, package = text_of(DOCS / "design.md"), REPOSITORY / "nezha_np"
    rooms = {f"{path.name}/" for path in package.iterdir() if path.is_dir() and not path.name.startswith("_")}
    rooms |= {path.name for path in package.glob("[!_]*.py")}
    assert not {room for room in rooms if f"`{room}`" not in text}
    rows = set(re.findall(r"^\| `(\w+\.py)` \|", text, flags=re.MULTILINE))
    assert rows == {path.name for path in (package / "mechanism").glob("[!_]*.py")}


# ---------------------------------------------------------------------------------------------------------- the API


def test_every_public_name_and_every_layer_is_on_a_page_of_the_api():
    text = "".join(text_of(page) for page in sorted((DOCS / "api").glob("*.md")))
    named = set(re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", text, flags=re.MULTILINE))
    modules = set(re.findall(r"^\.\. automodule:: nezha_np\.([\w.]+)$", text, flags=re.MULTILINE))
    assert not set(nz.__all__) - named - modules
    layers = {f"layers.{path.stem}" for path in (REPOSITORY / "nezha_np" / "layers").glob("[!_]*.py")}
    assert not layers - modules


# --------------------------------------------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as `.ci/run` does: every warning is an error."""
    for module in ("sphinx", "pydata_sphinx_theme", "numpydoc", "myst_nb", "latex2mathml"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install ".[docs]" brings what builds the site')
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "read")]
    done = subprocess.run([*command, str(DOCS), str(folder / "html")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a built page loads, its links, its anchors, and its pictures."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.ids, self.tags, self.pictures = [], [], set(), set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = {name: value or "" for name, value in attributes}
        self.tags.add(tag)
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "img":
            self.pictures.append(given)
        if tag == "a":
            self.links.append(given.get("href", ""))
        else:
            self.loads += [given[name] for name in ("src", "href", "data", "srcset", "poster") if name in given]
            self.loads += re.findall(r"url\(([^)]*)\)", given.get("style", ""))


def test_no_page_of_the_site_loads_anything_from_another_host(site):
    pages = {path: Page(path) for path in site.rglob("*.html")}
    assert len(pages) > 30
    elsewhere = re.compile(r"[\s'\"]*(https?:)?//")
    loads = {(path.name, load) for path, page in pages.items() for load in page.loads if elsewhere.match(load)}
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r"url\(([^)]*)\)|@import\s+([^;]*)", text)
        loads |= {(path.name, load) for pair in found for load in pair if elsewhere.match(load)}
    assert not loads


def test_every_link_within_the_site_leads_to_a_page_and_a_place_in_it(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link in ("", "#"):
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert file.exists(), f"{path.name}: {link}"
            if parts.fragment and file in pages:
                assert unquote(parts.fragment) in pages[file].ids, f"{path.name}: {link}"


@pytest.mark.parametrize("name", ["how_nezha_works", "how_nezha_works.zh"])
def test_formulas_are_mathml(site, name):
    page = site / f"{name}.html"
    text = page.read_text(encoding="utf-8")
    assert {"math", "mfrac", "msub"} <= Page(page).tags
    assert text.count('<div class="formula">') == len(re.findall(r"^\$\$", text_of(DOCS / f"{name}.md"), re.M))
    assert "\\" not in "".join(re.findall(r"<math.*?</math>", text, flags=re.DOTALL)), "a command of LaTeX is left"


def test_every_page_that_is_there_in_both_languages_links_to_the_other_one(site):
    chinese = list(site.rglob("*.zh.html"))
    notebooks = list((REPOSITORY / "notebooks").glob("*.zh.ipynb"))
    assert len(chinese) == len(notebooks) + len(list(DOCS.glob("*.zh.md"))) >= 16
    for path in chinese:
        twin = path.with_name(path.name.replace(".zh.", "."))
        for page, other in ((path, twin), (twin, path)):
            text = page.read_text(encoding="utf-8")
            language = "zh-Hans" if other == path else "en"
            assert f'href="{other.name}" lang="{language}" hreflang="{language}"' in text, page.name
            assert f'<link rel="alternate" hreflang="{language}" href="{other.name}">' in text, page.name


def test_the_notebooks_are_on_the_site_with_their_pictures(site):
    notebooks = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    assert notebooks
    for notebook in notebooks:
        page = Page(site / "notebooks" / f"{notebook.stem}.html")
        assert any("_images/" in load for load in page.loads), notebook.name


def test_each_notebook_can_be_downloaded_and_all_of_them_with_what_they_import(site):
    folder = REPOSITORY / "notebooks"
    for notebook in folder.glob("*.ipynb"):
        assert f"../downloads/{notebook.name}" in Page(site / "notebooks" / f"{notebook.stem}.html").links
        assert (site / "downloads" / notebook.name).read_bytes() == notebook.read_bytes()
    for page in ("notebooks", "notebooks.zh"):
        assert "downloads/nezha-notebooks.zip" in Page(site / f"{page}.html").links
    with zipfile.ZipFile(site / "downloads" / "nezha-notebooks.zip") as archive:
        found = {name.removeprefix("nezha-notebooks/"): archive.read(name) for name in archive.namelist()}
    needed = [*folder.glob("*.ipynb"), folder / "pictures.py", *folder.glob("fonts/*")]
    assert found == {path.relative_to(folder).as_posix(): path.read_bytes() for path in needed}


def test_the_first_page_opens_the_live_page_which_lies_beside_it(site):
    for page in ("index", "index.zh"):
        assert "_static/live.html" in Page(site / f"{page}.html").links
    assert 8_000_000 < (site / "_static" / "live.html").stat().st_size < 12_000_000


def test_every_picture_of_the_site_is_told_in_words_and_has_two_pixels_for_one_of_the_page(site):
    for path in site.rglob("*.html"):
        for picture in Page(path).pictures:
            source = (path.parent / unquote(picture["src"])).resolve()
            if source.parent == site.resolve() / "_static":
                continue  # Sphinx's own signs
            words = picture.get("alt", "")
            assert len(words) >= 20 and source.name not in words, f"{path.name}: {source.name} has the words {words!r}"
            if source.suffix != ".svg":
                width = int.from_bytes(source.read_bytes()[16:20], "big")  # of a PNG
                assert width >= 2 * int(picture.get("width", 1024)), f"{path.name}: {source.name} is {width} wide"


def test_the_words_of_a_notebooks_picture_are_those_that_stand_in_its_source(site):
    for notebook in sorted((REPOSITORY / "notebooks").glob("*.ipynb")):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        outputs = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        words = [output["text/plain"] for output in outputs if "image/png" in output]
        assert words == [picture["alt"] for picture in Page(site / "notebooks" / f"{notebook.stem}.html").pictures]


def test_the_search_knows_english_words_and_chinese_characters_and_their_pairs(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    found = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))

    def has(term, page="start.zh"):
        number = found["docnames"].index(page)
        pages = [found[where].get(term, []) for where in ("terms", "titleterms")]
        return any(number in (each if isinstance(each, list) else [each]) for each in pages)

    assert all(has(term) for term in ("相对", "对位", "位置", "词", "梯度", "numpi", "bert"))
    assert not any(has(term) for term in ("相位", "relat"))
    assert all(has(term, "how_nezha_works.zh") for term in ("残差", "差连", "连接", "整词", "遮盖"))
    assert all(has(term, "notebooks/03_attention.zh") for term in ("多头", "注意", "softmax"))
    assert max(len(term) for term in found["terms"] if re.search("[\u4e00-\u9fff]", term)) == 2


def test_every_public_name_can_be_linked_to_on_the_site(site):
    ids = set().union(*(Page(path).ids for path in (site / "api").glob("*.html")))
    missing = [name for name in nz.__all__ if f"nezha_np.{name}" not in ids and f"module-nezha_np.{name}" not in ids]
    assert not missing


def test_the_functions_of_the_api_link_to_their_source(site):
    text = (site / "api" / "layers_attention.html").read_text(encoding="utf-8")
    assert text.count('<dt class="sig sig-object') == text.count("../_modules/nezha_np/layers/")
    assert "../_modules/nezha_np/model/heads.html#masked_lm" in Page(site / "api" / "model.html").links


# ------------------------------------------------------------------------------------------------ the site in a browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("selenium", reason="selenium is not installed")
    if None in find_browser():
        pytest.skip("there is no Chromium, or no chromedriver")
    with open_browser() as window:
        yield window


@pytest.fixture
def show(browser, site):
    """Open a page of the site by its path, in a window of a width."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def open_page(path, width, dark=False):
            set_size(browser, width, 900, dark=dark)
            browser.get(f"http://127.0.0.1:{server.server_port}/{path}")
            return browser

        yield open_page
        browser.get("about:blank")
        server.shutdown()


IN_A_BROWSER = pytest.mark.filterwarnings("ignore::ResourceWarning")  # selenium's own sockets


@IN_A_BROWSER
def test_in_a_window_of_1280_pixels_no_code_and_no_table_scrolls_sideways(show, site):
    pages = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    assert len(pages) > 30
    for page in pages:
        if page.startswith(("_modules", "_static")):
            continue
        wide = show(page, 1280).execute_script(
            "return [...document.querySelectorAll('.bd-article pre, .bd-article table, .formula > div')]"
            ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.slice(0, 60))"
        )
        assert wide == [], page


@IN_A_BROWSER
def test_on_a_phone_the_parts_of_a_formula_stand_below_each_other_and_none_is_cut(show):
    pages = ("how_nezha_works", "how_nezha_works.zh", "notebooks/02_where_am_i", "notebooks/03_attention.zh")
    for page in [f"{page}.html" for page in pages]:
        browser = show(page, 360)
        cut = browser.execute_script(
            "return [...document.querySelectorAll('math')].filter(e => !e.closest('table'))"
            ".map(e => [e.textContent, e.getBoundingClientRect()])"
            ".filter(([, box]) => box.left < 0 || box.right > innerWidth).map(([text]) => text)"
        )
        assert cut == [], page
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    rows = "return new Set([...arguments[0].children].map(e => e.getBoundingClientRect().top)).size"
    formula = "return [...document.querySelectorAll('.formula')].find(e => e.children.length === 4)"
    browser = show("how_nezha_works.html", 360)
    assert browser.execute_script(rows, browser.execute_script(formula)) > 1


@IN_A_BROWSER
def test_on_a_dark_page_pictures_are_as_they_were_drawn_on_white(show):
    for page in ("explain.html", "benchmarks.html", "notebooks/01_characters_to_vectors.html"):
        styles = show(page, 1280, dark=True).execute_script(
            "return [...document.querySelectorAll('.bd-article img')].map(e => getComputedStyle(e))"
            ".map(style => [style.filter, style.backgroundColor])"
        )
        assert styles and all(style == ["none", "rgb(255, 255, 255)"] for style in styles), page


@IN_A_BROWSER
@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("相对位置", "start.zh.html"),
        ("注意力", "03_attention.zh.html"),
        ("词", "start.zh.html"),
        ("layer norm", "layer"),
    ],
)
def test_the_search_finds_what_is_asked_for(show, query, page):
    browser = show(f"search.html?q={query}", 1280)
    found = "return [...document.querySelectorAll('#search-results li a')].map(e => e.getAttribute('href'))"
    for _ in range(100):  # the results are listed one by one
        links = browser.execute_script(found)
        if any(page in link for link in links):
            break
        browser.execute_script("return new Promise(done => setTimeout(done, 100))")
    assert any(page in link for link in links)
