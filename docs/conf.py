"""The documentation site: ``pip install ".[docs]" && sphinx-build -W --keep-going -b html docs docs/_build``.

Nothing is run and nothing is loaded from another host: notebooks come with their outputs, formulas become MathML.
"""

import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import latex2mathml.converter
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.search import SearchEnglish
from sphinx.transforms import SphinxTransform

import nezha_np as nz

DOCS = Path(__file__).resolve().parent
REPOSITORY = DOCS.parent
NOTEBOOKS = REPOSITORY / "notebooks"
DOWNLOADS, ARCHIVE = "downloads", "nezha-notebooks.zip"  # a folder of the site, and a file in it

project = "nezha_np"
author = "The nezha_np authors"
project_copyright = author
version = release = nz.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode", "numpydoc", "myst_nb"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# --------------------------------------------------------------------------------------------------------- docstrings

default_role = "py:obj"  # `name` in a docstring is a link where the name is documented
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections say types and shapes
autodoc_preserve_defaults = True
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
add_module_names = False
toc_object_entries_show_parents = "hide"

# -------------------------------------------------------------------------------------------------- pages, notebooks

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"

# ---------------------------------------------------------------------------------------------------------- the look

html_theme = "pydata_sphinx_theme"
html_title = "nezha_np"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "nezha_np"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["language", "search-button-field"],  # on a phone too
    "navbar_align": "left",
    "header_links_before_dropdown": 4,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {"default_mode": "auto"}  # light or dark, as the system has it
html_sidebars = {"index": [], "start": [], "how_nezha_works": []}
html_math_renderer = "mathml"


def copy_notebooks(app: Sphinx) -> None:
    """Bring the notebooks in: Sphinx reads pages below docs/ alone. Times are kept, so that few are built anew."""
    folder = DOCS / "notebooks"
    folder.mkdir(exist_ok=True)
    notebooks = {path.name: path for path in NOTEBOOKS.glob("*.ipynb")}
    for stale in folder.iterdir():
        if stale.name not in notebooks:
            stale.unlink()
    for name, path in notebooks.items():
        shutil.copy2(path, folder / name)


def list_notebooks(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the notebooks below their page in the navigation, which the page itself has no need to know of."""
    if docname in ("notebooks", "notebooks.zh"):
        chinese = docname.endswith(".zh")
        pages = [path.stem for path in sorted((DOCS / "notebooks").iterdir()) if path.stem.endswith(".zh") == chinese]
        listed = "\n".join(f"notebooks/{page}" for page in pages)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def write_beside_pages(app: Sphinx, error: Exception | None) -> None:
    """Put beside the site what is made with it and not kept: the live page, of 11 MB, and the notebooks.

    Each of these lies there alone, and all with what they import, to be run anywhere.
    """
    if error is not None or app.builder.format != "html":
        return
    live = nz.explain("这家酒店的房间很[MASK]净，早餐也好吃。", live=True)
    (Path(app.outdir) / "_static" / "live.html").write_bytes(live.encode())
    folder = Path(app.outdir) / DOWNLOADS
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    needed = sorted([*NOTEBOOKS.glob("*.ipynb"), NOTEBOOKS / "pictures.py", *NOTEBOOKS.glob("fonts/*")])
    with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in needed:
            if path.suffix == ".ipynb":
                shutil.copyfile(path, folder / path.name)
            name = path.relative_to(NOTEBOOKS).as_posix()
            archive.writestr(zipfile.ZipInfo(f"nezha-notebooks/{name}"), path.read_bytes(), zipfile.ZIP_DEFLATED)


def offer_downloads(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Link the page of a notebook to the notebook, and the page of all of them to the archive, below the heading."""
    chinese = pagename.endswith(".zh")
    if pagename.startswith("notebooks/"):
        file = f"{pagename.removeprefix('notebooks/')}.ipynb"
        words = "下载这篇笔记本" if chinese else "Download this notebook"
    elif pagename in ("notebooks", "notebooks.zh"):
        file, words = ARCHIVE, "下载全部笔记本" if chinese else "Download all notebooks"
    else:
        return
    link = f'<p><a href="{context["pathto"](f"{DOWNLOADS}/{file}", 1)}" download>{words}</a></p>'
    context["body"] = context["body"].replace("</h1>", f"</h1>\n{link}", 1)


def link_live_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """On the site, let the first page's link to what is said of the live page open the page itself."""
    if docname in ("index", "index.zh"):
        link = r"\[([^]]+)\]\(explain\.md#the-live-page\)"
        source[0] = re.sub(link, r'<a href="_static/live.html">\1</a>', source[0])


class LinksOutside(SphinxTransform):
    """Pages are read in the repository too, so their links may lead out of docs/: say what they are on the site.

    A link to a notebook is one to its page, one to another file a download, and one to a folder is its words alone.
    """

    default_priority = 5  # before links are resolved and downloads are collected

    def apply(self, **options: Any) -> None:
        """Change the links of one page."""
        docname = self.env.docname
        folder = (DOCS / docname).parent
        for node in list(self.document.findall(is_link)):
            written, _, fragment = node["reftarget"].partition("#")
            if node.get("refdomain") == "doc":  # a page below docs/, or one that looks like it: without its suffix
                target, fragment = DOCS / written, node["reftargetid"]
                target = next(
                    (file for kind in (".md", ".ipynb") if (file := Path(f"{target}{kind}")).exists()), target
                )
            else:  # a notebook was copied: its links are those of the place where it is in the repository
                target = (NOTEBOOKS if folder == DOCS / "notebooks" else folder) / written
            target = target.resolve()
            if not written or not target.exists() or not target.is_relative_to(REPOSITORY):
                continue  # Sphinx warns
            if target.parent == NOTEBOOKS and target.suffix == ".ipynb":
                target = DOCS / "notebooks" / target.name
            shared = {"refdoc": docname, "reftype": "myst", "refexplicit": node["refexplicit"]}
            if target.is_dir():
                node.replace_self(node.children)
                continue
            if target.is_relative_to(DOCS) and target.suffix in (".md", ".ipynb"):
                page = target.relative_to(DOCS).with_suffix("").as_posix()
                link = addnodes.pending_xref(refdomain="doc", reftarget=page, reftargetid=fragment or None, **shared)
            else:
                link = addnodes.download_reference(refdomain=None, reftarget=os.path.relpath(target, folder), **shared)
            link.source, link.line = node.source, node.line
            link += node.children
            node.replace_self(link)


class PicturesSayWhatTheyShow(SphinxTransform):
    """A notebook shows a picture and, for readers who cannot see it, a text: that is the picture's alternative text."""

    default_priority = 500

    def apply(self, **options: Any) -> None:
        """Put the texts of one page into its pictures."""
        for bundle in self.document.findall(nodes.container):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            kinds = {kind["mime_type"]: kind for kind in bundle.children}
            if "text/plain" not in kinds:
                continue
            for picture in bundle.findall(nodes.image):
                picture["alt"] = kinds["text/plain"].astext().strip()


def is_link(node: nodes.Node) -> bool:
    """Say whether a node is a link that was written in Markdown and will be resolved by Sphinx."""
    return isinstance(node, (addnodes.pending_xref, addnodes.download_reference)) and node.get("reftype") == "myst"


def literal_formulas(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Show the indented formulas and tables at the top of a docstring as they are written there."""
    out: list[str] = []
    for index, line in enumerate(lines):
        if index and re.fullmatch(r"-{3,}", line):  # a section: what follows is indented for its own reasons
            out += lines[index:]
            break
        before = [text for text in out if text]
        starts = line.startswith("    ") and (not out or not out[-1]) and before and not before[-1].startswith(" ")
        if starts and not before[-1].endswith("::") and not re.match(r"(\d+\.|-) ", before[-1]):
            out += ["::", ""]
        out.append(line)
    lines[:] = out


def inline_formula(writer: Any, node: nodes.math) -> None:
    """Write a formula in a line as MathML."""
    writer.body.append(latex2mathml.converter.convert(node.astext()))
    raise nodes.SkipNode


def displayed_formula(writer: Any, node: nodes.math_block) -> None:
    """Write a formula of its own lines as MathML: its parts side by side, or below each other where there is no room.

    Parts are separated by wide spaces, or by the end of a line before an equals sign.
    """
    parts = re.split(r"\s*\\q?quad\s*|\n(?==)", node.astext())
    formulas = (latex2mathml.converter.convert(part, display="block") for part in parts)
    writer.body.append(f'<div class="formula">{"".join(f"<div>{formula}</div>" for formula in formulas)}</div>\n')
    raise nodes.SkipNode


HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters


class EnglishAndChinese(SearchEnglish):
    """The words of the search: those of English, and of Chinese, which has no spaces, all characters and their pairs.

    A query is a run of pairs, and finds the pages that have them all: 相对位置 those with 相对, 对位 and 位置.
    """

    js_splitter_code = rf"""
function splitQuery(query) {{
  const runs = query.match(/[{HAN}]+|(?:(?![{HAN}])[\p{{Letter}}\p{{Number}}_\p{{Emoji_Presentation}}])+/gu) ?? [];
  return runs.flatMap((run) => {{
    const characters = [...run];
    if (characters.length < 2 || !/[{HAN}]/u.test(run)) return [run];
    return characters.slice(1).map((character, at) => characters[at] + character);
  }});
}}
"""

    def split(self, text: str) -> list[str]:
        """Split a text of a page."""
        words = re.findall(rf"[^\W{HAN}]+", text)
        for run in re.findall(f"[{HAN}]+", text):
            words += [*run, *(run[at : at + 2] for at in range(len(run) - 1))]
        return words


def say_language(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Say that a page is in Chinese: browsers choose the shapes of characters by it, screen readers the voice."""
    if pagename.endswith(".zh"):
        context["body"] = f'<div lang="zh-Hans">{context["body"]}</div>'


def link_to_twin(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Give the template of the header what it needs to link a page to the same page in the other language."""
    chinese = pagename.endswith(".zh")
    twin = pagename.removesuffix(".zh") if chinese else f"{pagename}.zh"
    if twin in app.env.found_docs:
        language, name = ("en", "English") if chinese else ("zh-Hans", "中文")
        context |= {"twin": twin, "twin_language": language, "twin_language_name": name}
        link = f'<link rel="alternate" hreflang="{language}" href="{context["pathto"](twin)}">'
        context["metatags"] = context.get("metatags", "") + link


def link_back_by_documented_name(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Mend the "[docs]" links of the source pages: `viewcode` takes one name of a module for all that it defines.

    One function of a file may be documented as ``nezha_np.forward``, another as ``nezha_np.model.model.encoder``.
    """
    if not pagename.startswith("_modules/nezha_np/"):
        return
    module = pagename.removeprefix("_modules/").replace("/", ".")
    documented = app.env.domains["py"].objects

    def mend(link: re.Match[str]) -> str:
        name = link[2].removeprefix(f"{module}.").removeprefix("nezha_np.")
        return link[1] + next(
            (full for full in (f"nezha_np.{name}", f"{module}.{name}") if full in documented), link[2]
        )

    context["body"] = re.sub(r'(class="viewcode-back" href="[^"#]*#)([^"]*)', mend, context["body"])


def setup(app: Sphinx) -> None:
    """Put the above together."""
    app.connect("builder-inited", copy_notebooks)
    app.connect("source-read", list_notebooks)
    app.connect("source-read", link_live_page)
    app.connect("build-finished", write_beside_pages)
    app.connect("autodoc-process-docstring", literal_formulas, priority=400)  # before numpydoc
    app.connect("html-page-context", say_language)
    app.connect("html-page-context", link_to_twin)
    app.connect("html-page-context", offer_downloads)
    app.connect("html-page-context", link_back_by_documented_name)
    app.add_transform(LinksOutside)
    app.add_transform(PicturesSayWhatTheyShow)
    app.add_search_language(EnglishAndChinese)
    app.add_html_math_renderer("mathml", (inline_formula, None), (displayed_formula, None))
