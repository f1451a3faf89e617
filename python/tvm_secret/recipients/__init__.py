"""Who may open a sealed value: recipients wrap its session key, identities unwrap it.

One file per kind of key. A kind is a `Recipient` (the public half, used to seal), an `Identity` (the private
half, wherever it lives) and its entry in the tables at the end of this file; nothing else changes when a kind
is added. A *stanza* is what a recipient writes into the header: a flat JSON object with `type`, `key` (the
key id) and whatever that type needs to unwrap again.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

from ..errors import IdentityError, RecipientError

__all__ = ["Identity", "Recipient", "load_identity", "load_recipients"]

Stanza = dict[str, str]


class Recipient(ABC):
    key_id: str

    @abstractmethod
    def wrap(self, session_key: bytes) -> Stanza:
        """Encrypt `session_key` (16 or 32 bytes) to this recipient."""


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


# URI scheme or PEM label -> module of this package with `recipient_from_pem` or `identity_from_uri`.
_PEM_LABELS = {"PUBLIC KEY": "rsa", "RSA PUBLIC KEY": "rsa"}
_URI_SCHEMES: dict[str, str] = {}


def _kind(module: str):
    return importlib.import_module(f".{module}", __name__)


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
        text = path.read_bytes()
    except OSError as error:
        raise RecipientError(
            f"cannot read the public key {path}: {error.strerror}; 'tvmc keygen' makes a pair"
        ) from None
    blocks = _pem_blocks(text)
    if not blocks:
        raise RecipientError(f"{path} holds no public key in PEM form")
    found = []
    for label, block in blocks:
        if label not in _PEM_LABELS:
            raise RecipientError(f"{path} holds a {label.lower()}, not a recipient's public key")
        found.append(_kind(_PEM_LABELS[label]).recipient_from_pem(block, path))
    return found


def _pem_blocks(text: bytes) -> list[tuple[str, bytes]]:
    import re

    pattern = rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----"
    return [(match[1].decode(), match[0]) for match in re.finditer(pattern, text, re.DOTALL)]


def load_identity(source: str | Path | Identity, passphrase=None) -> Identity:
    """The private key that `source` names: a key file, or the URI of a key kept elsewhere.

    `passphrase` is a callable that gives the passphrase as bytes, called only when one is needed.
    """
    if isinstance(source, Identity):
        return source
    scheme, colon, _ = str(source).partition(":")
    if colon and scheme in _URI_SCHEMES:
        return _kind(_URI_SCHEMES[scheme]).identity_from_uri(str(source), passphrase)
    from .. import keyfiles

    path = Path(source)
    key = keyfiles.load_private_key(path, passphrase)
    for module in dict.fromkeys(_PEM_LABELS.values()):
        identity = _kind(module).identity_from_key(key)
        if identity is not None:
            return identity
    raise IdentityError(f"{path} is not a key that opens sealed values (is it a signing key?)")
