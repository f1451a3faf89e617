"""What the site shows beside the pages of this folder, made anew by each build.

- The front page is README.md.
- The reference of `tvmc` comes from its parser.
- The tutorials are those of tutorials/README.md.
- The figures come from benchmarks/results, as far as there are any.

Pages link to files of the repository as they lie there, so that they read well outside the site too; links
from one page to another are turned into links of the site.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and figures that are made."""
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text()))
    files.append(File.generated(config, "tutorials.md", content=tutorials()))
    files.append(File.generated(config, "reference/tvmc.md", content=tvmc_reference()))
    for picture in sorted(RESULTS.glob("*.png")):
        files.append(File.generated(config, f"benchmarks/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links into links of the site, and fill in the figures."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["navigation"]
        markdown = markdown.replace("](docs/", "](").replace("](tutorials/README.md", "](tutorials.md")
        return markdown.replace("](benchmarks/results/", "](benchmarks/")
    if page.file.src_uri == "benchmarks.md":
        markdown = markdown.replace("<!-- figures -->", benchmark_figures())
    top = "../" * page.file.src_uri.count("/")
    markdown = re.sub(r"\]\((?:\.\./)+tutorials/README\.md", f"]({top}tutorials.md", markdown)
    return re.sub(r"\]\((?:\.\./)+README\.md", f"]({top}index.md", markdown)


def tutorials() -> str:
    """The tutorials' page, with the names of the scripts in place of links to them."""
    text = (ROOT / "tutorials" / "README.md").read_text()
    return re.sub(r"\[[^]]+\]\((secret/[^)]*)\)", r"`tutorials/\1`", text)


# ------------------------------------------------------------------------------------------------------ tvmc


def tvmc_reference() -> str:
    """The page of the command line, from the parser that reads it."""
    from tvm_secret.cli import build_parser

    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help for action in commands._choices_actions}
    parts = [_HEAD, "| command | what it does |", "| --- | --- |"]
    parts += [f"| [`tvmc {name}`](#tvmc-{name}) | {summary} |" for name, summary in summaries.items()]
    for name, command in commands.choices.items():
        parts += ["", f"## tvmc {name}", "", *_command(command)]
    return "\n".join(parts) + "\n"


_HEAD = """# tvmc

Each command prints its part of this page with `--help`. Exit codes: 0 done; 1 refused or failed, and one line
on standard error says why; 2 wrong usage. A command that fails leaves no partial output. The keys that a
command uses are those of its options, of the environment, or of the current folder: [Keys](../keys.md).
`python -m tvm.driver.tvmc` is the same program under the name that users of upstream know.
"""


def _command(command: argparse.ArgumentParser) -> Iterator[str]:
    yield _code(command.description or "") + "\n"
    positionals = [_metavar(action) for action in command._actions if not action.option_strings]
    yield f"```text\ntvmc {command.prog.split()[-1]} [options] {' '.join(positionals)}\n```\n"
    for group in command._action_groups:
        actions = [
            action
            for action in group._group_actions
            if action.help and action.help != argparse.SUPPRESS and action.dest != "help"
        ]
        if not actions:
            continue
        title = group.title or ""
        yield f"**{title[:1].upper()}{title[1:]}**\n\n| option | meaning |\n| --- | --- |"
        for action in actions:
            yield f"| {_names(action)} | {_help(command, action)} |"
        yield ""
    _, _, example = (command.epilog or "").partition("\n")
    yield f"```sh\n{textwrap.dedent(example).strip()}\n```"


def _metavar(action: argparse.Action) -> str:
    if action.choices and action.metavar is None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    name = action.metavar or action.dest.upper()
    return {"+": f"{name}...", "?": f"[{name}]", "*": f"[{name}...]"}.get(str(action.nargs), str(name))


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{_metavar(action)}`"
    names = ",&nbsp;".join(f"`{name}`" for name in action.option_strings)
    if action.nargs == 0 or (action.choices and action.metavar is None):
        return names
    return f"{names}&nbsp;`{_metavar(action)}`"


def _help(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = command._get_formatter()._expand_help(action) if action.help else ""
    if action.choices and action.metavar is None:
        text = f"one of {', '.join(f'`{choice}`' for choice in action.choices)}; {text}".rstrip("; ")
    return _code(text).replace("|", "\\|")


def _code(text: str) -> str:
    """Plain text of a `--help`, with what one types marked as such."""
    typed = r"(?<!\w)'(?P<quoted>[^']+)'|(?P<bare>(?<![\w-])--?[a-z][\w-]*|\$TVM_SECRET_\w+)"
    return re.sub(typed, lambda found: f"`{found['quoted'] or found['bare']}`", text)


# ------------------------------------------------------------------------------------------------ benchmarks


def benchmark_figures(folder: Path = RESULTS) -> str:
    """Plots and tables of what the benchmarks wrote, or a word that there is nothing."""
    results = sorted(folder.glob("*.json"), key=lambda path: (path.stem != "inference", path.stem))
    if not results:
        return "!!! note\n    This build of the site has no results in it: the commands above make them.\n"
    parts = []
    for path in results:
        title = path.stem.replace("_", " ")
        parts.append(f"## {title.capitalize()}\n")
        if path.with_suffix(".png").exists():
            parts.append(f"![{title}](benchmarks/{path.stem}.png)\n")
        parts += _figures(json.loads(path.read_text()))
    return "\n".join(parts)


_ENVIRONMENT = ("cpu", "cores", "python", "versions")
_LEFT_OUT = ("min_ms",)
"""Columns that stay in the JSON, so that a table can be read."""


def _figures(figures: dict[str, Any]) -> Iterator[str]:
    """What `benchmarks/common.py` saved: the environment, single figures as a line, the others as tables."""
    versions = ", ".join(f"{package} {version}" for package, version in figures["versions"].items())
    yield f"On {figures['cpu']} with {figures['cores']} cores; Python {figures['python']}, {versions}.\n"
    left = {name: value for name, value in figures.items() if name not in _ENVIRONMENT}
    single = {name: value for name, value in left.items() if not isinstance(value, (dict, list))}
    if single:
        yield "; ".join(f"{_title(name)}: {_cell(value)}" for name, value in single.items()) + ".\n"
    for name, value in left.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield from _table([_flat(row) for row in value])
        elif isinstance(value, dict):
            rows = {key: row if isinstance(row, dict) else {"": row} for key, row in value.items()}
            yield from _table([{_title(name): key} | _flat(row) for key, row in rows.items()])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """`row` with objects in it opened one level: {"ms": {"ours": 1}} becomes {"ms: ours": 1}."""
    flat = {}
    for name, value in row.items():
        if name in _LEFT_OUT:
            continue
        if isinstance(value, dict):
            flat |= {f"{_title(name)}: {_title(key)}": inner for key, inner in value.items()}
        else:
            flat[_title(name)] = value
    return flat


def _title(name: str) -> str:
    return name.replace("_", " ")


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(columns)} |"
    yield "| --- " + "| ---: " * (len(columns) - 1) + "|"
    for row in rows:
        yield f"| {' | '.join(_cell(row.get(column, '')) for column in columns)} |"
    yield ""


def _cell(value: Any) -> str:
    """A figure, or the median of a list of them."""
    if isinstance(value, list):
        value = statistics.median(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
