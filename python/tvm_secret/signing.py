"""Who vouches for a sealed value: Ed25519 (RFC 8032) signatures over its core and its payload's digest.

A signature says what a value is, not who may read it: recipients are left out of it, so that a file can be
sealed to new devices without the owner's signing key and stay vouched for (docs/format.md argues the choice).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import SignatureError

__all__ = ["Signer", "Verifier", "load_signer", "load_verifiers"]

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
