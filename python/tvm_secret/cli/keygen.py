"""tvmc keygen"""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import context, keyfiles
from .options import passphrase_from

DESCRIPTION = """Make an RSA key pair for sealing, or an Ed25519 pair for signing.

The private key is encrypted under a passphrase (scrypt, AES-256), which is taken from --passphrase-file, from
$TVM_SECRET_PASSPHRASE, or asked for on the terminal. Give the public key to whoever seals for you; keep the
private key, and a copy of it: what was sealed to it opens with nothing else."""
EXAMPLE = """  tvmc keygen --out-dir keys
  tvmc keygen --signing --out-dir keys"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bits", type=int, default=keyfiles.DEFAULT_BITS, help="size of the RSA key (default: %(default)s)"
    )
    parser.add_argument("--out-dir", type=Path, default=Path("."), metavar="D", help="default: here")
    parser.add_argument("--signing", action="store_true", help="make a signing pair (Ed25519) instead")
    parser.add_argument("--force", action="store_true", help="replace a pair that exists")
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help="first line: the passphrase")


def run(arguments: argparse.Namespace) -> None:
    names = keyfiles.SIGNING_NAMES if arguments.signing else keyfiles.RSA_NAMES
    keyfiles.refuse_existing(arguments.out_dir, names, overwrite=arguments.force)
    passphrase = passphrase_from(arguments.passphrase_file) or context.new_passphrase()
    key = keyfiles.generate_signing() if arguments.signing else keyfiles.generate_rsa(arguments.bits)
    paths = keyfiles.write_pair(key, arguments.out_dir, names, passphrase, overwrite=arguments.force)
    print(f"private key: {paths[0]}\npublic key:  {paths[1]}")
