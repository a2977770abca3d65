"""The documentation as pages: all of it, with links that lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
from conftest import REPO

spec = importlib.util.spec_from_file_location("pages", REPO / "docs" / "pages.py")
pages = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pages)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages") / "docs"
    pages.lay_out(folder)
    return folder


def test_every_page_is_in_the_contents_and_the_other_way_around(folder):
    made = {path.stem for path in folder.glob("*.md")} - {"index"}
    named = [page for section in pages.SECTIONS.values() for page in section]
    assert sorted(named) == sorted(made)
    index = (folder / "index.md").read_text()
    assert all(f"\n{page}\n" in index for page in named)
    assert {f"docs/{path.name}" for path in (REPO / "docs").glob("*.md")} < set(pages.PAGES)


def test_links_lead_to_pages(folder):
    links = 0
    for path in folder.glob("*.md"):
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            if "://" not in target and not target.startswith(("#", "mailto:")):
                links += 1
                assert (folder / target.partition("#")[0]).exists(), f"{path.name}: {target}"
    assert links > 20


def test_what_is_no_page_is_named_without_a_link():
    text = "[a](../config/README.md#sae), [b](../LICENSE), [c](https://example.org/x), [d](#here), ![e](report.png)"
    assert pages.turned(text, "docs/running.md") == (
        "[a](config.md#sae), b, [c](https://example.org/x), [d](#here), ![e](report.png)"
    )
    assert pages.turned("[r](docs/running.md) ![p](docs/report.png)", "README.md") == "[r](running.md) ![p](report.png)"
