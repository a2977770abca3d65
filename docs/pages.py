"""Lay out the documentation for Sphinx: `make docs` makes pages of it, in site/.

    python docs/pages.py FOLDER

Takes the repository's Markdown, with links turned into those of pages, adds a page made of docstrings and a gallery of
the studies that have been run here, and writes all of it with Sphinx's configuration to FOLDER.
"""

import posixpath
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = {
    "README.md": "index.md",
    "config/README.md": "config.md",
    "results/README.md": "tables.md",
    "organisms/README.md": "shipped.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
} | {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
"""Pages by the files that they are made from."""

SECTIONS = {
    "Using it": ["running", "config", "cloud", "results", "tables", "api"],
    "Methods": ["evidence", "interventions", "calibration", "organisms", "reliability", "gallery"],
    "Inside": ["design", "shipped", "benchmarks", "changelog", "contributing"],
}

CONF = """\
import sys

sys.path.insert(0, {library!r})
project = "thoughtscope"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "thoughtscope"
html_extra_path = ["extra"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"
suppress_warnings = ["myst.header", "misc.highlighting_failure"]


def setup(app):
    app.connect("autodoc-process-docstring", lambda *of: marked(of[-1]))


def marked(lines):
    # Our docstrings are plain text with names in backquotes: a bar is a bar, and what is set in is code.
    made = []
    for line in lines:
        if line.startswith("    ") and made and not made[-1]:
            before = next((each for each in reversed(made) if each), "")
            if not before.startswith("    "):
                made += ["::", ""]
        made.append(line if line.startswith("    ") else line.replace("|", "\\\\|"))
    lines[:] = made
"""

API = """\
# In Python

`pip install .` in a copy of thoughtscope, or a path to its `workflow/scripts`, and `import thoughtscope`;
docs/notebook.ipynb has examples.

```{eval-rst}
.. automodule:: thoughtscope.api
   :members:
```
"""

GALLERY = """\
# Gallery

Whole reports, as studies make them. Of the three studies whose truth is known, `make controls` makes them: a model that
was taught to think, its sham, and the model as it was.

"""

PICTURES = """\
![The report: answer, dashboard of a latent, trace reader](report.png)

![What is left after each check](waterfall.png)

![Whether each SAE fits what it reads](site_gate.png)
"""


def turned(markdown: str, source: str) -> str:
    """Return a file's text with links to other files turned into those of pages, or taken out where there is none."""

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        page = PAGES.get(path) or (Path(path).name if path.endswith(".png") else None)
        return f"[{text}]({page}{anchor or ''})" if page else text

    return re.sub(r"\[([^\]\[]+)\]\(([^)#\s]+)(#[^)\s]*)?\)", link, markdown)


def contents() -> str:
    """Return the table of contents, which stands at the end of the first page."""
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "".join(f"{page}\n" for page in pages) + "```\n"
        for caption, pages in SECTIONS.items()
    )


def lay_out(folder: Path) -> None:
    """Write all pages and Sphinx's configuration to a folder, in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "extra" / "reports").mkdir(parents=True)
    for source, page in PAGES.items():
        text = turned((ROOT / source).read_text(encoding="utf-8"), source)
        (folder / page).write_text(text + (contents() if page == "index.md" else ""), encoding="utf-8")
    for picture in (ROOT / "docs").glob("*.png"):
        shutil.copy(picture, folder)
    links = ""
    for report in sorted((ROOT / "results").glob("*/report.html")):
        shutil.copy(report, folder / "extra" / "reports" / f"{report.parent.name}.html")
        links += f"- <a href='reports/{report.parent.name}.html'>{report.parent.name}</a>\n"
    (folder / "gallery.md").write_text(GALLERY + (f"{links}\n" if links else "") + PICTURES, encoding="utf-8")
    (folder / "api.md").write_text(API, encoding="utf-8")
    library = str(ROOT / "workflow" / "scripts")
    (folder / "conf.py").write_text(CONF.format(library=library), encoding="utf-8")


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
