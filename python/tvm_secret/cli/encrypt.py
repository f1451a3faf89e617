"""tvmc encrypt"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import envelope, formats
from . import options

DESCRIPTION = """Seal a model, or an .npz of inputs, to one or more recipients.

MODEL is a file; the folder of a SavedModel; or, for MXNet, both NAME-symbol.json and NAME-0000.params. Only
holders of a recipient's private key can open the result. No plaintext is written anywhere."""
EXAMPLE = """  tvmc encrypt in.npz
  tvmc encrypt model.onnx -o model.onnx.sealed -r rsa_public_key.pem --sign-key signing_private_key.bin"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: MODEL.sealed")
    parser.add_argument(
        "--model-format",
        choices=list(formats.FORMATS),
        help="default: guessed from the name of the file",
    )
    parser.add_argument(
        "--layout",
        choices=envelope.LAYOUTS,
        default="sealed",
        help="raw is the original system's, without header (default: %(default)s)",
    )
    options.add_sealing(parser)
    options.add_policy(parser)
    options.add_keys(parser, opens=False, seals=True, signs=True)


def run(arguments: argparse.Namespace) -> None:
    chosen = arguments.model_format
    content_type = formats.content_type_of(chosen) if chosen else formats.guess(arguments.model)
    first = arguments.model[0]
    output = arguments.output or first.with_name(first.name + ".sealed")
    with options.keys(arguments), options.progress_bar(f"sealing {first.name}") as progress:
        envelope.seal_file(
            arguments.model,
            output,
            content_type=content_type,
            suite=arguments.suite,
            layout=arguments.layout,
            policy=options.policy(arguments),
            progress=progress,
        )
