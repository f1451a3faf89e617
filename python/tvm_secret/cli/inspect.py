"""tvmc inspect"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import artefact, envelope
from ..header import Header

DESCRIPTION = """Show what a sealed file, or each member of an artefact, says of itself.

No key is needed, so nothing is proved: 'tvmc verify' checks a signature, and opening checks everything."""
EXAMPLE = "  tvmc inspect model.onnx.sealed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--device", action="store_true", help="print this machine's device id and stop")


def run(arguments: argparse.Namespace) -> int:
    if arguments.device:
        from ..policy import device_id

        print(device_id())
        return 0
    if arguments.file is None:
        import sys

        print("tvmc inspect: error: FILE is missing", file=sys.stderr)
        return 2
    described = {name: _describe(header) for name, header in _headers(arguments.file).items()}
    if arguments.json:
        print(json.dumps(described, indent=2))
    else:
        _print_tables(described)
    return 0


def _headers(path: Path) -> dict[str, Header]:
    if artefact.is_artefact(path):
        return artefact.inspect(path)
    return {path.name: envelope.inspect(path)}


def _describe(header: Header) -> dict[str, Any]:
    return {
        "content": header.content_type,
        "bytes": header.core["size"],
        "suite": header.core["suite"],
        "signer": header.signer,
        "bundle": header.core.get("bundle"),
        "policy": header.policy,
        "recipients": [
            {name: value for name, value in stanza.items() if name != "wrapped"}
            for stanza in header.recipients
        ],
    }


def _print_tables(described: dict[str, dict[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, markup=False)  # nothing shown here is authenticated
    for name, fields in described.items():
        table = Table(title=name, title_justify="left", show_header=False, box=box.SIMPLE_HEAD)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        table.add_row("content", fields["content"])
        table.add_row("size", f"{fields['bytes']:,} bytes")
        table.add_row("suite", fields["suite"])
        table.add_row("signed by", fields["signer"] or "nobody")
        if fields["bundle"]:
            table.add_row("bundle", fields["bundle"])
        for condition, value in fields["policy"].items():
            table.add_row(condition.replace("_", " "), value)
        for stanza in fields["recipients"]:
            rest = ", ".join(value for key, value in stanza.items() if key != "key")
            table.add_row("recipient", f"{stanza['key']} ({rest})")
        console.print(table)
