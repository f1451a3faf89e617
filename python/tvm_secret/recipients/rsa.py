"""RSA-OAEP (RFC 8017, section 7.1) recipients and identities.

The stanza is `{"type": "rsa-oaep", "hash": "sha256", "key": ..., "wrapped": base64}`; the hash serves both as
OAEP's own and as that of its mask generation function MGF1, and the label is empty. `sha1` exists for tokens
that know no other and for the raw layout: OAEP's security does not rest on collision resistance. A recipient
asks for it with the line `oaep-hash: sha1` in its public key file, as explanatory text before the PEM block
(RFC 7468, section 2), which other software skips; `tvmc keygen --from` writes it where it is needed.
"""

from __future__ import annotations

import base64
import re
from abc import abstractmethod
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ..errors import AuthenticationError, IdentityError, RecipientError
from ..keyfiles import RSA_NAMES, key_id, public_pem
from . import Identity, Recipient, Stanza, unopened, wrapped_key

__all__ = ["OaepIdentity", "RsaIdentity", "RsaRecipient"]

TYPE = "rsa-oaep"
MINIMUM_BITS = 2048
DEFAULT_HASH = "sha256"
HASHES = {"sha256": hashes.SHA256, "sha1": hashes.SHA1}
_HASH_LINE = re.compile(r"^oaep-hash:[ \t]*(\S*)[ \t\r]*$", re.MULTILINE)


def _oaep(hash_name: str) -> padding.OAEP:
    algorithm = HASHES[hash_name]()
    return padding.OAEP(padding.MGF1(algorithm), algorithm, None)


class RsaRecipient(Recipient):
    file_names = RSA_NAMES

    def __init__(self, public_key: rsa.RSAPublicKey, hash_name: str = DEFAULT_HASH) -> None:
        self.public_key = public_key
        self.hash_name = hash_name
        self.key_id = key_id(public_key)

    def wrap(self, session_key: bytes) -> Stanza:
        return {
            "type": TYPE,
            "hash": self.hash_name,
            "key": self.key_id,
            "wrapped": base64.b64encode(self.wrap_raw(session_key)).decode(),
        }

    def wrap_raw(self, session_key: bytes) -> bytes:
        """The bare OAEP ciphertext, as long as the modulus."""
        return self.public_key.encrypt(session_key, _oaep(self.hash_name))

    def to_pem(self) -> bytes:
        text = "" if self.hash_name == DEFAULT_HASH else f"oaep-hash: {self.hash_name}\n"
        return text.encode() + public_pem(self.public_key)


class OaepIdentity(Identity):
    """Any RSA private key; where it lives, and so how it decrypts, is the subclasses' part.

    Raises `IdentityError` when the key is too short.
    """

    def __init__(self, public_key: rsa.RSAPublicKey) -> None:
        if public_key.key_size < MINIMUM_BITS:
            raise IdentityError(
                f"an RSA key of {public_key.key_size} bits is too short: at least {MINIMUM_BITS}"
            )
        self._public_key = public_key
        self.key_id = key_id(public_key)
        self.wrapped_size = (public_key.key_size + 7) // 8

    def recipient(self) -> RsaRecipient:
        return RsaRecipient(self._public_key)

    def unwrap(self, stanza: Stanza) -> bytes:
        wrapped = wrapped_key(stanza, TYPE)
        if stanza.get("hash") not in HASHES:
            raise AuthenticationError("the wrapped session key is of an unknown kind")
        return self.unwrap_raw(wrapped, stanza["hash"])

    def unwrap_raw(self, wrapped: bytes, hash_name: str) -> bytes:
        """Decrypt a bare OAEP ciphertext; `hash_name` is "sha256" or "sha1". Raises as `unwrap`."""
        if len(wrapped) != self.wrapped_size:
            raise unopened()
        return self._decrypt(wrapped, hash_name)

    @abstractmethod
    def _decrypt(self, wrapped: bytes, hash_name: str) -> bytes:
        """RSAES-OAEP-DECRYPT of `wrapped_size` bytes; raises `unopened()` where it fails."""


class RsaIdentity(OaepIdentity):
    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        super().__init__(private_key.public_key())
        self._private_key = private_key

    def _decrypt(self, wrapped: bytes, hash_name: str) -> bytes:
        try:
            return self._private_key.decrypt(wrapped, _oaep(hash_name))
        except ValueError:
            raise unopened() from None


def recipient_from_key(key: object, text: str, path: Path) -> RsaRecipient | None:
    """`text` is what stands before the key in its file `path`."""
    if not isinstance(key, rsa.RSAPublicKey):
        return None
    if key.key_size < MINIMUM_BITS:
        raise RecipientError(f"{path} has {key.key_size} bits; at least {MINIMUM_BITS} are needed")
    line = _HASH_LINE.search(text)
    hash_name = line[1] if line else DEFAULT_HASH
    if hash_name not in HASHES:
        raise RecipientError(f"{path} asks for an unknown oaep-hash; there are {', '.join(HASHES)}")
    return RsaRecipient(key, hash_name)


def identity_from_key(key: object) -> RsaIdentity | None:
    return RsaIdentity(key) if isinstance(key, rsa.RSAPrivateKey) else None
