"""Hashes of code: an edit changes those of what it affects, and no others."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import REPO

from thoughtscope import code
from thoughtscope.errors import InputError

ROOT = REPO / "workflow" / "scripts" / "thoughtscope"
SCRIPTS = sorted((REPO / "workflow" / "scripts").glob("*.py"))

LIBRARY = {
    "__init__.py": '"""A package."""\n',
    "config.py": '''
"""Config."""
import re
from .errors import InputError

SEGMENTS = ("prompt", "answer")
"""Parts."""
OTHER = 1

def check(value):
    """Check it."""
    # a remark
    if value != OTHER:
        raise InputError(f"value is {value}; it must be {OTHER}.")
    return re.compile("x")
''',
    "errors.py": "class InputError(Exception):\n    pass\n",
    "maths.py": '''
import functools
from . import config

LIMIT = 3

@functools.cache
def mean(values):
    return sum(values) / len(values)

def limited(values):
    return mean(values[:LIMIT])

def parts():
    return config.SEGMENTS

class Frame:
    """A frame."""
    def __init__(self, size: "Size"):
        self.size = size

class Size:
    unit = 1
''',
    "room/__init__.py": "",
    "room/tables.py": """
from ..maths import limited
from thoughtscope import maths as m
from . import checks

def table(frame):
    return limited(frame)

def lazy(frame):
    from ..config import check
    from .. import maths
    return check(maths.parts())

def whole(frame):
    return getattr(m, "me" + "an")(frame)

def judged(frame):
    return checks.CHECKS

def framed(frame: m.Frame):
    return frame
""",
    "room/checks.py": "CHECKS = (1,)\n",
}

FUNCTIONS = ["table", "lazy", "whole", "judged", "framed"]


@pytest.fixture
def library(tmp_path) -> Path:
    root = tmp_path / "thoughtscope"
    for name, text in LIBRARY.items():
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        (root / name).write_text(text)
    return root


def changed(library: Path, file: str, old: str, new: str) -> set[str]:
    """Edit a file; return the functions whose hash is another for it."""

    def digests() -> dict[str, str]:
        package = code.Package(library)
        return {name: package.digest(f"room.tables.{name}") for name in FUNCTIONS}

    before = digests()
    text = (library / file).read_text()
    assert old in text
    (library / file).write_text(text.replace(old, new))
    after = digests()
    return {name for name in before if after[name] != before[name]}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("config.py", '"""Check it."""', '"""Check it well."""'),
        ("config.py", '"""Parts."""', ""),
        ("config.py", "# a remark", "# another\n\n"),
        ("config.py", "it must be {OTHER}", "allowed is {OTHER}"),
        ("errors.py", "pass", "code = 2"),
        ("maths.py", "sum(values) / len(values)", "(sum(values)\n            / len(values))"),
    ],
)
def test_what_makes_no_difference(library, file, old, new):
    assert changed(library, file, old, new) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "affected"),
    [
        ("maths.py", "sum(values) /", "2 * sum(values) /", {"table", "whole"}),  # through a function between
        ("maths.py", "LIMIT = 3", "LIMIT = 4", {"table", "whole"}),  # a constant
        ("maths.py", "@functools.cache", "@functools.lru_cache", {"table", "whole"}),
        ("config.py", 'compile("x")', 'compile("y")', {"lazy"}),  # imported where it is used
        ("config.py", '"answer")', '"reply")', {"lazy", "whole"}),  # an attribute of a module
        ("config.py", "import re", "import regex as re", {"lazy"}),  # another module of that name
        ("maths.py", "import functools", "import functools\nimport math\nfrom .room import checks", {"whole"}),
        ("config.py", "OTHER = 1", "OTHER = 2", {"lazy"}),
        ("maths.py", "unit = 1", "unit = 2", {"framed", "whole"}),  # of a type that is only written as text
        ("maths.py", "LIMIT = 3", "LIMIT = 3\nlimited.slow = True", set(FUNCTIONS)),  # on import
        ("maths.py", "LIMIT = 3", "LIMIT = 3\nfor f in (1, 2):\n    print(f)", set(FUNCTIONS)),
        ("room/__init__.py", "", "import os\nos.umask(0)", set(FUNCTIONS)),
        ("room/checks.py", "1", "2", {"judged"}),
    ],
)
def test_what_is_affected(library, file, old, new, affected):
    assert changed(library, file, old, new) == affected


def test_a_script_depends_on_what_it_imports(library, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("with job():\n    from thoughtscope.room import tables\n    tables.table(1)\n")

    def digest() -> str:
        return code.Package(library).digest_of_script(script)

    before = digest()
    (library / "config.py").write_text(LIBRARY["config.py"].replace("answer", "reply"))
    assert digest() == before
    (library / "maths.py").write_text(LIBRARY["maths.py"].replace("LIMIT = 3", "LIMIT = 4"))
    assert digest() != before


def test_names_that_are_not_there():
    for name in ("evidence.verdict.verdikt", "evidense.verdict", "verdict"):
        with pytest.raises(InputError, match=rf"thoughtscope has no {re.escape(name)}; name a function"):
            code.digest(name)


def test_the_library_itself(tmp_path):
    """A helper of the statistics is part of every test made with it; an error of the config of none."""
    root = tmp_path / "thoughtscope"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    names = ["evidence.controls.controls", "evidence.verdict.verdict", "readings.block.read"]
    before = [code.digest(name) for name in names]
    assert [code.Package(root).digest(name) for name in names] == before
    for file, old, new, affected in (
        ("statistics.py", "def mcnemar(", "def mcnemar(extra=None, *, ", [True, False, False]),
        ("config.py", "it must be finite", "it can't be", [False, False, False]),
        ("sites.py", "SINK_NORM_RATIO = 10.0", "SINK_NORM_RATIO = 11.0", [False, False, True]),
    ):
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new))
        package = code.Package(root)
        assert [package.digest(name) != digest for name, digest in zip(names, before, strict=True)] == affected
        (root / file).write_text(text)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_has_one(script):
    assert re.fullmatch(r"[0-9a-f]{16}", code.digest_of_script(script))


def test_nothing_is_imported_by_a_computed_name_but_in_dispatch():
    """Else code would run that no hash has seen."""
    for path in ROOT.rglob("*.py"):
        if path.stem not in ("dispatch", "code", "docs", "columns", "api"):  # they make nothing that a job makes
            assert not re.search(r"import_module|__import__|\bexec\(|(?<!\.)\beval\(|globals\(", path.read_text()), path
