"""Each promise that a document makes names the test that holds us to it, and that test exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMISES = ("SEMANTICS.md", "DURABILITY.md")
NAMING = (*PROMISES, "SCALE.md")
"""Those that name tests; the last has figures, too, which no test holds."""
NAMED = re.compile(r"`(?:(test_\w+)::)?(test_\w+)`")
LINKED = (*PROMISES, "DESIGN.md", "INSTALL.md")
UNTESTED = "Not tested: "
"""Stands before the reason, in a line that names no test."""


def defined() -> Counter[tuple[str, str]]:
    """Give (module, name) of each test function there is."""
    return Counter(
        (path.stem, node.name)
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


def promises(text: str) -> Iterator[str]:
    """Give each item of a list, with its further lines, and each row of a table but for its head."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("- "):
            rest = lines[number + 1 :]
            further = next((i for i, other in enumerate(rest) if not other.startswith("  ")), len(rest))
            yield "\n".join([line, *rest[:further]])
        elif line.startswith("| ") and number + 1 < len(lines) and not lines[number + 1].startswith("|--"):
            yield line


DOCUMENTS = {name: (ROOT / "docs" / name).read_text() for name in NAMING}


@pytest.mark.parametrize("document", NAMING)
def test_every_test_that_is_named_exists_once(document: str) -> None:
    tests = defined()
    of_name = Counter(name for _, name in tests.elements())
    named = NAMED.findall(DOCUMENTS[document])
    assert named
    wrong = [
        f"{module}::{name}" if module else name
        for module, name in named
        if (tests[module, name] if module else of_name[name]) != 1
    ]
    assert wrong == []


@pytest.mark.parametrize("document", PROMISES)
def test_every_promise_names_its_test(document: str) -> None:
    found = list(promises(DOCUMENTS[document]))
    assert len(found) > 10
    assert [line for line in found if not NAMED.search(line) and UNTESTED not in line] == []


def test_the_readme_leads_to_every_document() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in readme


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", *(f"docs/{name}" for name in LINKED)])
def test_links_between_documents_lead_somewhere(path: str) -> None:
    document = ROOT / path
    for target, _, section in re.findall(r"\]\(((?!http)[^)#]*)(#([^)]*))?\)", document.read_text()):
        linked = document.parent / target if target else document
        assert linked.exists(), target
        if linked.is_dir():
            continue
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
        assert not section or section in [
            re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings
        ]
