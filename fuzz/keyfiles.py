"""A file of keys, whatever is in it, is read or refused with `SecretError`.

The first byte chooses how it is read: as public keys, a private key, signers' keys or a revocation list.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization as s

from fuzz.harness import VectorIdentity, as_file, vectors
from tvm_secret import keyfiles
from tvm_secret.errors import SecretError
from tvm_secret.recipients import load_identity, load_recipients
from tvm_secret.signing import load_revoked, load_signer, load_verifiers

PASSPHRASE = b"passphrase"
SPARE = 192 << 20
"""64 MB, and 128 MB for what derives a key from the passphrase."""


def _passphrase(path: Path) -> bytes:
    return PASSPHRASE


READERS = (
    lambda path: load_recipients([path]),
    lambda path: load_identity(path, _passphrase),
    lambda path: load_signer(path, _passphrase),
    lambda path: load_verifiers([path]),
    lambda path: load_revoked([path]),
    lambda path: keyfiles.read_passphrase(path),
)


def seeds() -> Iterator[bytes]:
    rsa = VectorIdentity()
    yield b"\0oaep-hash: sha1\n" + rsa.recipient().to_pem()
    quantum = keyfiles.generate_post_quantum()
    yield b"\0" + keyfiles.public_pem(quantum.public_key())
    yield b"\1" + vectors()["private_key"].encode()
    for key in (quantum, keyfiles.generate_signing()):
        yield b"\1" + keyfiles._encrypted_pem(key, PASSPHRASE)
        form = (s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption())
        yield b"\1" + key.private_bytes(*form)
        yield b"\2" + key.private_bytes(*form)
    signing = keyfiles.generate_signing()
    form = (s.Encoding.DER, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(PASSPHRASE))
    yield b"\2" + signing.private_bytes(*form)
    yield b"\3" + vectors()["signer"].encode()
    yield b"\4" + b"# revoked\n" + b"12" * 16 + b"\n"
    yield b"\5secret\n"


def check(data: bytes) -> None:
    read = READERS[data[0] % len(READERS)] if data else READERS[0]
    with as_file(data[1:]) as path:
        try:
            read(path)
        except SecretError:
            return
