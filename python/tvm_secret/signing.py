"""Who vouches for a sealed value: Ed25519 (RFC 8032) signatures over its core and its payload's digest.

A signature says what a value is, not who may read it: recipients are left out of it, so that a file can be
sealed to new devices without the owner's signing key and stay vouched for (docs/format.md argues the choice).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import SignatureError

__all__ = ["Signer", "Trust", "Verifier", "load_revoked", "load_signer", "load_verifiers"]

SIGNATURE_SIZE = 64


class Verifier:
    """A signer's public key."""

    def __init__(self, public_key) -> None:
        from .keyfiles import key_id

        self._public_key = public_key
        self.key_id = key_id(public_key)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raise `SignatureError` unless `signature` is this key's over `message`."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public_key.verify(signature, message)
        except InvalidSignature:
            raise SignatureError(
                f"the signature of {self.key_id} does not fit: the file was altered after it was signed"
            ) from None


class Signer:
    """A signer's private key."""

    def __init__(self, private_key) -> None:
        self._private_key = private_key
        self.key_id = self.verifier().key_id

    def verifier(self) -> Verifier:
        return Verifier(self._private_key.public_key())

    def sign(self, message: bytes) -> bytes:
        return self._private_key.sign(message)


@dataclass(frozen=True)
class Trust:
    """Whose signatures count. `signers` is None where nobody was named: then unsigned values open too."""

    signers: dict[str, Verifier] | None = None
    revoked: frozenset[str] = frozenset()

    @property
    def required(self) -> bool:
        return self.signers is not None

    def verifier(self, key_id: str | None) -> Verifier | None:
        """The trusted signer `key_id`; None where no signature is required.

        Raises `SignatureError` for a signer who is revoked, unknown, or missing where one is required.
        """
        if key_id in self.revoked:
            raise SignatureError(f"it is signed by {key_id}, who is revoked")
        if self.signers is None:
            return None
        if key_id is None:
            raise SignatureError("it is not signed, and only signed files are opened here (signers are set)")
        if key_id not in self.signers:
            raise SignatureError(f"it is signed by {key_id}, who is not among the trusted signers")
        return self.signers[key_id]


def load_signer(path: str | Path, passphrase) -> Signer:
    """Read a signing key made by `tvmc keygen --signing`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from .keyfiles import load_private_key

    key = load_private_key(Path(path), passphrase)
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} is not a signing key; 'tvmc keygen --signing' makes one")
    return Signer(key)


def load_verifiers(paths: Iterable[str | Path]) -> dict[str, Verifier]:
    """Read trusted signers' public keys (PEM files, or folders of them) by key id."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = {}
    for path in map(Path, paths):
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        if not files:
            raise SignatureError(f"the folder {path} holds no .pem file")
        for file in files:
            try:
                key = load_pem_public_key(file.read_bytes())
            except OSError as error:
                raise SignatureError(f"cannot read the signer's key {file}: {error.strerror}") from None
            except (ValueError, UnsupportedAlgorithm):
                raise SignatureError(f"{file} is not a public key in PEM form") from None
            if not isinstance(key, Ed25519PublicKey):
                raise SignatureError(f"{file} is not a signer's public key (Ed25519)")
            verifier = Verifier(key)
            found[verifier.key_id] = verifier
    return found


def load_revoked(paths: Iterable[str | Path]) -> frozenset[str]:
    """Read lists of revoked signers: text files with one key id a line, `#` starting a comment."""
    found = set()
    for path in map(Path, paths):
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise SignatureError(f"cannot read the list of revoked signers {path}: {reason}") from None
        for line in lines:
            key_id = line.partition("#")[0].strip().lower()
            if key_id and not re.fullmatch(r"[0-9a-f]{32}", key_id):
                raise SignatureError(f"{path}: {key_id[:40]!r} is not a key id (32 hexadecimal digits)")
            found.add(key_id)
    return frozenset(found - {""})
