"""What docs/site/ makes of pages and docstrings."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from tests.docs import ROOT


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs/site"))
    for name in ("pages", "links", "columns"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module(request.param)


@pytest.mark.parametrize("hook", ["links"], indirect=True)
@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "docs/objective.md#targets", "objective.md#targets"),
        ("index.md", "docs/adr/", "adr/index.md"),
        ("index.md", "docs/flow.svg", "flow.svg"),
        ("objective.md", "scorers/compose.md", "scorers/compose.md"),
        ("quickstart.md", "notebook.ipynb", "notebook.md"),
        ("scorers/code.md", "../../sppo/faults.py", "../source/sppo/faults.py.md"),
        ("operations.md", "../deploy/README.md", "outside/deploy.md"),
        ("outside/deploy.md", "../docs/security.md", "../security.md"),
        ("outside/deploy.md", "systemd/", "../source/deploy/systemd.md"),
        ("objective.md", "https://example.org/a", "https://example.org/a"),
        ("objective.md", "no/such/file.md", "no/such/file.md"),
        ("objective.md", "../../outside.md", "../../outside.md"),
    ],
)
def test_links_lead_to_the_sites_page(
    hook: ModuleType, page: str, link: str, expected: str
) -> None:
    assert hook.rewritten(f"see [it]({link}).", page) == f"see [it]({expected})."


@pytest.mark.parametrize("hook", ["links"], indirect=True)
def test_texts_that_are_names_of_pages_lose_their_ending(hook: ModuleType) -> None:
    text = "([docs/gpu.md](docs/gpu.md#will-it-fit), `a.md`)"
    assert hook.rewritten(text, "index.md") == "([gpu](gpu.md#will-it-fit), `a.md`)"


@pytest.mark.parametrize("hook", ["pages"], indirect=True)
def test_every_command_has_its_help(hook: ModuleType) -> None:
    text = hook.command_line()
    for name in ("sppo-cli up", "sppo-cli bench objective", "sppo-cli config show"):
        assert f"## {name}\n" in text
    assert "--dry-run" in text


@pytest.mark.parametrize("hook", ["pages"], indirect=True)
def test_the_reference_is_of_modules_that_are_there(hook: ModuleType) -> None:
    for module in hook.API:
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__init__.py").exists()


@pytest.mark.parametrize("hook", ["columns"], indirect=True)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Says it.\n\nstep     a number\nuid      a ticket",
            "Says it.\n\n    step     a number\n    uid      a ticket",
        ),
        ("One sentence\nof two lines.", "One sentence\nof two lines."),
        ("P[i][j] is no link", "P[i]\\[j] is no link"),
        ("    code  as  it  stands", "    code  as  it  stands"),
    ],
)
def test_columns_stay_columns(hook: ModuleType, text: str, expected: str) -> None:
    assert hook.laid_out(text) == expected
