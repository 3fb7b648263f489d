"""Pages of the site that no file of docs/ holds: the start page (README.md), the pages that
stand beside docs/, the help of every command, and the reference of the modules that one programs
against.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = {
    "index.md": "README.md",
    "outside/deploy.md": "deploy/README.md",
    "outside/contributing.md": "CONTRIBUTING.md",
    "outside/changelog.md": "CHANGELOG.md",
}
API = {
    "sppo.scorer.base": "what a scorer gets, and what it may answer",
    "sppo.scorer.calls": "the forms of a scorer of your own",
    "sppo.learner.objectives.base": "an objective of your own",
    "sppo.config": "settings, from files and the environment, checked",
    "sppo.metrics": "what `metrics.jsonl` holds, and how to read it",
    "sppo.samples": "what `samples.jsonl` holds",
    "sppo.launch.run_dir": "the directory of a run",
    "sppo.evaluation.statistics": "intervals, tests and estimators of an evaluation",
    "sppo.evaluation.records": "the record of an evaluation",
    "sppo.errors": "every error that is raised on purpose, with its exit code",
    "sppo.types": "what crosses a process boundary",
    "sppo.learner.objectives.targets": "scores, targets, selection and labels, of tensors",
    "sppo.kernels": "log-probs without the logits, and the SPPO loss",
    "sppo.tasks.sources": "where prompts come from",
    "sppo.generators.engine": "what a generator asks of an inference engine",
    "sppo.transport.broker": "what every role may ask of the broker",
    "sppo.weights.protocol": "a weight sync, and its two ends",
}
"""Modules in the order in which a newcomer needs them, and what for."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The navigation with every `*` written out."""
    made = [_api_page(module) for module in API]
    config.nav = [_whole(entry, made) for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for file in notebook(config, "notebook"):
        files.append(file)
    for page, source in OUTSIDE.items():
        files.append(_page(config, page, (ROOT / source).read_text(encoding="utf-8")))
    files.append(_page(config, "command-line.md", command_line()))
    files.append(_page(config, "api/index.md", api_index()))
    files.append(_page(config, "adr/index.md", decisions()))
    for module, purpose in API.items():
        text = f"# {module}\n\n*{purpose[0].upper()}{purpose[1:]}.*\n\n::: {module}\n"
        files.append(_page(config, _api_page(module), text))
    return files


def _page(config: MkDocsConfig, place: str, text: str) -> File:
    return File.generated(config, place, content=text)


def notebook(config: MkDocsConfig, name: str) -> list[File]:
    """A notebook of docs/ as a page, and the pictures that its cells drew."""
    text = (ROOT / "docs" / f"{name}.ipynb").read_text(encoding="utf-8")
    parts: list[str] = []
    pictures: list[File] = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts += [source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```", ""]
        for output in cell.get("outputs", []):
            if "text" in output:
                parts += [f"```text\n{''.join(output['text']).rstrip()}\n```", ""]
            elif "image/png" in output.get("data", {}):
                place = f"{name}-{len(pictures) + 1}.png"
                drawn = base64.b64decode(output["data"]["image/png"])
                pictures.append(File.generated(config, place, content=drawn))
                parts += [f"![what the cell above draws]({place})", ""]
    return [_page(config, f"{name}.md", "\n".join(parts)), *pictures]


def _api_page(module: str) -> str:
    return f"api/{module.removeprefix('sppo.')}.md"


def _whole(entry: Any, made: list[str]) -> Any:
    if isinstance(entry, dict):
        return {title: _children(inside, made) for title, inside in entry.items()}
    return entry


def _children(inside: Any, made: list[str]) -> Any:
    if isinstance(inside, str):
        return inside
    found: list[Any] = []
    for entry in inside:
        if entry == "api/*":
            found += [{"API": ["api/index.md", *made]}]
        elif isinstance(entry, str) and entry.endswith("/*"):
            folder = ROOT / "docs" / entry.removesuffix("/*")
            found += ["adr/index.md"] if entry == "adr/*" else []
            found += sorted(f"{folder.name}/{path.name}" for path in folder.glob("*.md"))
        else:
            found.append(_whole(entry, made))
    return found


def api_index() -> str:
    """The modules that one programs against, and what for."""
    rows = [f"| [{m}]({_api_page(m)[4:]}) | {purpose} |" for m, purpose in API.items()]
    return "\n".join(
        [
            "# The API",
            "",
            "Modules in the order in which one needs them: for a scorer or an objective of one's",
            "own, to read a run, and to replace a part. What is not listed here may change without",
            "notice.",
            "",
            "| module | what for |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def decisions() -> str:
    """The decisions, by their titles."""
    rows = []
    for path in sorted((ROOT / "docs" / "adr").glob("*.md")):
        title = path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        rows.append(f"- [{title}]({path.name})")
    return "\n".join(
        ["# Decisions", "", "Why things are as they are, one page each.", "", *rows, ""]
    )


def command_line() -> str:
    """What every command says to `--help`."""
    from sppo_cli.commands import app

    group = typer.main.get_command(app)
    parts = ["# The command line", "", "What `--help` says of each command.", ""]
    for path, command in _commands(group, ("sppo-cli",)):
        context = command.make_context(
            " ".join(path), [], resilient_parsing=True, terminal_width=84, max_content_width=84
        )
        parts += [f"## {' '.join(path)}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(parts)


def _commands(command: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], Any]]:
    found = [(path, command)]
    for name, inside in getattr(command, "commands", {}).items():
        found += _commands(inside, (*path, name))
    return found
