"""tvmc rewrap"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import artefact, envelope
from . import options

DESCRIPTION = """Seal a file, or an artefact, to other recipients without touching its payload.

The private key of one of the present recipients is needed. A signature stays valid: it says what the file is,
not who may read it. Whoever could open the old file can still open any copy of it."""
EXAMPLE = "  tvmc rewrap model.onnx.sealed -o both.sealed -r rsa_public_key.pem -r device/rsa_public_key.pem"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="may be FILE itself")
    options.add_keys(parser, opens=True, seals=True)


def run(arguments: argparse.Namespace) -> None:
    rewrap = artefact.rewrap if artefact.is_artefact(arguments.file) else envelope.rewrap
    with options.keys(arguments):
        rewrap(arguments.file, arguments.output)
