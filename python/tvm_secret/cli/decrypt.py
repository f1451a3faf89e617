"""tvmc decrypt"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import artefact, envelope
from ..errors import ContentTypeError
from ..files import atomic_writer
from . import options

DESCRIPTION = """Open sealed outputs, or inputs, for the owner of the data. Needs a recipient's private key.

Models, modules, weights and artefacts are refused, whatever the key: they are opened in memory only, by
'tvmc compile' and 'tvmc run'."""
EXAMPLE = "  tvmc decrypt out.npz.sealed -o out.npz"

DATA = ("outputs", "inputs")
"""The content types that belong to whoever holds the key."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NPZ")
    options.add_keys(parser, opens=True, seals=False)


def run(arguments: argparse.Namespace) -> None:
    path = arguments.file
    # Read once: the header that is looked at is that of the bytes that are opened.
    sealed = path.read_bytes()
    with options.keys(arguments), envelope.naming(path):
        # The raw layout, which does not say what it holds, ends here.
        kept = "an artefact" if artefact.is_artefact(path) else envelope.inspect(sealed).content_type
        if kept not in DATA:
            raise ContentTypeError(f"it holds {kept}, which is opened in memory only; decrypt is for data")
        with (
            envelope.unseal(sealed, content_type=DATA) as secret,
            atomic_writer(arguments.output, mode=0o600) as file,
        ):
            file.write(secret.view)
