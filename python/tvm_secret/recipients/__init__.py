"""Who may open a sealed value: recipients wrap its session key, identities unwrap it.

One file per kind of key. A kind is a `Recipient` (the public half, used to seal), an `Identity` (the private
half, wherever it lives) and its entry in the tables below; nothing else changes when a kind is added. A
*stanza* is what a recipient writes into the header: a flat JSON object with `type`, `key` (the key id) and
whatever that type needs to unwrap again.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from .. import keyfiles
from ..errors import AuthenticationError, IdentityError, RecipientError

__all__ = ["Identity", "Recipient", "load_identity", "load_recipients"]

Stanza = dict[str, str]


class Recipient(ABC):
    key_id: str
    file_names: tuple[str, str]
    """What `tvmc keygen` calls a private and a public key of this kind."""

    @abstractmethod
    def wrap(self, session_key: bytes) -> Stanza:
        """Encrypt `session_key` (16 or 32 bytes) to this recipient."""

    @abstractmethod
    def to_pem(self) -> bytes:
        """The public key file that `load_recipients` makes this recipient of again."""


class Identity(ABC):
    key_id: str

    @abstractmethod
    def recipient(self) -> Recipient:
        """The public half."""

    @abstractmethod
    def unwrap(self, stanza: Stanza) -> bytes:
        """Return the session key of a stanza whose `key` is this identity's `key_id`.

        Raises `AuthenticationError` when the stanza does not open, `IdentityError` when the key cannot be
        used at all (a token that is locked or gone, say).
        """


# Modules of this package with `recipient_from_key` and `identity_from_key`, for keys in files.
_FILE_KINDS = ("rsa", "hpke")
# URI scheme of keys kept elsewhere -> module of this package with `identity_from_uri`.
_URI_SCHEMES = {"pkcs11": "pkcs11", "awskms": "awskms"}


def _kind(module: str):
    return importlib.import_module(f".{module}", __name__)


def wrapped_key(stanza: Stanza, kind: str) -> bytes:
    """The `wrapped` bytes of a stanza of type `kind`. Raises `AuthenticationError` for anything else."""
    if stanza.get("type") != kind:
        raise AuthenticationError("the wrapped session key is of an unknown kind")
    try:
        return base64.b64decode(stanza["wrapped"], validate=True)
    except (KeyError, binascii.Error, ValueError):
        raise AuthenticationError("the wrapped session key is not base64") from None


def unopened() -> AuthenticationError:
    """What `Identity.unwrap` raises for a `wrapped` that decryption refuses."""
    return AuthenticationError(
        "the wrapped session key does not open: it was altered, or sealed to another key"
    )


def load_recipients(sources: Iterable[str | Path | Recipient]) -> list[Recipient]:
    """Read every public key from `sources`: PEM files (of one key or many) and folders of them.

    Duplicates are dropped. Raises `RecipientError` where a source is missing or holds no public key.
    """
    found: dict[str, Recipient] = {}
    for source in sources:
        for recipient in [source] if isinstance(source, Recipient) else _from_path(Path(source)):
            found.setdefault(recipient.key_id, recipient)
    return list(found.values())


def _from_path(path: Path) -> list[Recipient]:
    if path.is_dir():
        files = sorted(path.glob("*.pem"))
        if not files:
            raise RecipientError(f"the folder {path} holds no .pem file")
        return [recipient for file in files for recipient in _from_path(file)]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecipientError(
            f"cannot read the public key {path}: {error.strerror}; 'tvmc keygen' makes a pair"
        ) from None
    found, position = [], 0
    while begin := _PEM_BEGIN.search(data, position):
        end_line = b"-----END " + begin[1] + b"-----"
        end = data.find(end_line, begin.end())
        if end < 0:
            raise RecipientError(f"{path} is cut short: a PEM block in it has no end")
        block = data[begin.start() : end + len(end_line)]
        found.append(_from_pem(data[position : begin.start()], block, begin[1].decode(), path))
        position = begin.start() + len(block)
    if not found:
        raise RecipientError(f"{path} holds no public key in PEM form")
    return found


_PEM_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n")


def _from_pem(text: bytes, block: bytes, label: str, path: Path) -> Recipient:
    """`text` is what stands before the block: RFC 7468's explanatory text, which may speak of it."""
    if label not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        raise RecipientError(f"{path} holds a {label.lower()}, not a recipient's public key")
    key = keyfiles.load_public_key(block, path)
    for module in _FILE_KINDS:
        recipient = _kind(module).recipient_from_key(key, text.decode("utf-8", "replace"), path)
        if recipient is not None:
            return recipient
    raise RecipientError(
        f"{path} is not a public key that can be sealed to (is it a verification key of a signer?)"
    )


def load_identity(source: str | Path | Identity, passphrase=None) -> Identity:
    """The private key that `source` names: a key file, or the URI of a key kept elsewhere.

    `passphrase` is a callable that gives the passphrase as bytes, called only when one is needed.
    """
    if isinstance(source, Identity):
        return source
    scheme, colon, _ = str(source).partition(":")
    if colon and scheme in _URI_SCHEMES:
        return _kind(_URI_SCHEMES[scheme]).identity_from_uri(str(source), passphrase)
    path = Path(source)
    key = keyfiles.load_private_key(path, passphrase)
    for module in _FILE_KINDS:
        identity = _kind(module).identity_from_key(key)
        if identity is not None:
            return identity
    raise IdentityError(f"{path} is not a key that opens sealed values (is it a signing key?)")
