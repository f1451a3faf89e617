"""tvmc verify"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import artefact, context, envelope
from .options import add_signer

DESCRIPTION = """Check that a trusted signer vouches for a sealed file, or for every member of an artefact.

The signature covers the content type, the policy and the whole payload. No private key is needed."""
EXAMPLE = "  tvmc verify model.onnx.sealed --signer signing_public_key.pem"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    add_signer(parser)


def run(arguments: argparse.Namespace) -> None:
    with context.use(signers=arguments.signer, revoked=arguments.revoked):
        if artefact.is_artefact(arguments.file):
            headers = artefact.verify(arguments.file)
        else:
            headers = {arguments.file.name: envelope.verify(arguments.file)}
    for name, header in headers.items():
        print(f"{name}: {header.content_type}, signed by {header.signer}")
