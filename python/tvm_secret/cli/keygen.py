"""tvmc keygen"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from .. import context, keyfiles
from .options import passphrase_from

DESCRIPTION = """Make an RSA key pair for sealing, or another kind of pair.

The private key is encrypted under a passphrase (scrypt, AES-256), which is taken from --passphrase-file, from
$TVM_SECRET_PASSPHRASE, or asked for on the terminal. Give the public key to whoever seals for you; keep the
private key, and a copy of it: what was sealed to it opens with nothing else.

A private key that lives in a PKCS#11 token or in AWS KMS is made there; --from writes its public key, as in
--from 'pkcs11:token=device;object=model' or --from awskms:alias/model."""
EXAMPLE = """  tvmc keygen
  tvmc keygen --signing
  tvmc keygen --out-dir device"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bits", type=int, default=keyfiles.DEFAULT_BITS, help="size of the RSA key (default: %(default)s)"
    )
    parser.add_argument("--out-dir", type=Path, default=Path("."), metavar="D", help="default: here")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--signing", action="store_true", help="make a signing pair (Ed25519) instead")
    kind.add_argument(
        "--post-quantum",
        action="store_true",
        help="make a sealing pair that a quantum computer does not break (ML-KEM-768 with X25519)",
    )
    kind.add_argument(
        "--from", dest="source", metavar="KEY", help="only write the public key of this private key"
    )
    parser.add_argument("--force", action="store_true", help="replace keys that exist")
    parser.add_argument("--passphrase-file", type=Path, metavar="FILE", help="first line: the passphrase")


def run(arguments: argparse.Namespace) -> None:
    if arguments.source:
        _write_public_key(arguments)
        return
    if arguments.signing:
        names, generate = keyfiles.SIGNING_NAMES, keyfiles.generate_signing
    elif arguments.post_quantum:
        names, generate = keyfiles.POST_QUANTUM_NAMES, keyfiles.generate_post_quantum
    else:
        names, generate = keyfiles.RSA_NAMES, functools.partial(keyfiles.generate_rsa, arguments.bits)
    keyfiles.refuse_existing(arguments.out_dir, names, overwrite=arguments.force)
    passphrase = passphrase_from(arguments.passphrase_file) or context.new_passphrase()
    paths = keyfiles.write_pair(generate(), arguments.out_dir, names, passphrase, overwrite=arguments.force)
    print(f"private key: {paths[0]}\npublic key:  {paths[1]}")


def _write_public_key(arguments: argparse.Namespace) -> None:
    with context.use(
        identity=arguments.source, passphrase=passphrase_from(arguments.passphrase_file)
    ) as keys:
        recipient = keys.identity().recipient()
    path = keyfiles.write_public(recipient, arguments.out_dir, overwrite=arguments.force)
    print(f"public key:  {path}")
