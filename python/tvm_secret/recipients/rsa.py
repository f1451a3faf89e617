"""RSA-OAEP (RFC 8017, section 7.1) recipients and identities.

The stanza is `{"type": "rsa-oaep", "hash": "sha256", "key": ..., "wrapped": base64}`; the hash serves both as
OAEP's own and as that of its mask generation function MGF1, and the label is empty. `sha1` exists for tokens
that know no other and for the raw layout: OAEP's security does not rest on collision resistance.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ..errors import AuthenticationError, IdentityError, RecipientError
from . import Identity, Recipient, Stanza

__all__ = ["RsaIdentity", "RsaRecipient", "key_id"]

TYPE = "rsa-oaep"
MINIMUM_BITS = 2048
_HASHES = {"sha256": hashes.SHA256, "sha1": hashes.SHA1}


def key_id(public_key) -> str:
    """First 16 bytes, in hex, of SHA-256 over the key's SubjectPublicKeyInfo (RFC 5280) in DER."""
    import hashlib

    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:32]


def _oaep(hash_name: str) -> padding.OAEP:
    algorithm = _HASHES[hash_name]()
    return padding.OAEP(padding.MGF1(algorithm), algorithm, None)


class RsaRecipient(Recipient):
    def __init__(self, public_key: rsa.RSAPublicKey, hash_name: str = "sha256") -> None:
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


class RsaIdentity(Identity):
    def __init__(self, private_key: rsa.RSAPrivateKey) -> None:
        self._private_key = private_key
        self.key_id = key_id(private_key.public_key())
        self.wrapped_size = (private_key.key_size + 7) // 8

    def recipient(self) -> RsaRecipient:
        return RsaRecipient(self._private_key.public_key())

    def unwrap(self, stanza: Stanza) -> bytes:
        if stanza.get("type") != TYPE or stanza.get("hash") not in _HASHES:
            raise AuthenticationError("the wrapped session key is of an unknown kind")
        try:
            wrapped = base64.b64decode(stanza["wrapped"], validate=True)
        except (KeyError, binascii.Error, ValueError):
            raise AuthenticationError("the wrapped session key is not base64") from None
        return self.unwrap_raw(wrapped, stanza["hash"])

    def unwrap_raw(self, wrapped: bytes, hash_name: str) -> bytes:
        try:
            return self._private_key.decrypt(wrapped, _oaep(hash_name))
        except ValueError:
            raise AuthenticationError(
                "the wrapped session key does not open: it was altered, or sealed to another key"
            ) from None


def recipient_from_pem(block: bytes, path: Path) -> RsaRecipient:
    try:
        key = serialization.load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise RecipientError(f"{path} holds no public key that can be read") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise RecipientError(f"{path} is not an RSA public key (is it a verification key of a signer?)")
    if key.key_size < MINIMUM_BITS:
        raise RecipientError(f"{path} has {key.key_size} bits; at least {MINIMUM_BITS} are needed")
    return RsaRecipient(key)


def identity_from_key(key: object) -> RsaIdentity | None:
    if not isinstance(key, rsa.RSAPrivateKey):
        return None
    if key.key_size < MINIMUM_BITS:
        raise IdentityError(f"an RSA key of {key.key_size} bits is too short: at least {MINIMUM_BITS}")
    return RsaIdentity(key)
