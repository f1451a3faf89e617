"""X-Wing key pairs, ML-KEM-768 (FIPS 203) beside X25519 (RFC 7748), and their encodings.

draft-connolly-cfrg-xwing-kem-10 specifies them: a private key is a 32-byte seed, expanded with SHAKE256 into
the two halves (5.2); in PKCS#8 and SubjectPublicKeyInfo seed and public key stand as they are, under the
draft's object identifier and without parameters (5.8). `cryptography` has the KEM and takes the two halves,
but knows neither seed nor encodings. The classes here have as much of the interface of its keys as this
package uses.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

__all__ = ["XWingPrivateKey", "XWingPublicKey", "load_private_key", "load_public_key"]

_OID = "1.3.6.1.4.1.62253.25722"
_SEED_SIZE = 32
_MLKEM_SIZE, _X25519_SIZE = 1184, 32
# DER of every such SubjectPublicKeyInfo up to the key: two sequences, the identifier, a bit string.
_SPKI_PREFIX = bytes.fromhex("308204d4 300d 060b2b0601040183e62d81c87a 038204c100")


class XWingPublicKey:
    """`encoded` is the ML-KEM key (1184 bytes) and the X25519 key (32). Raises `ValueError` for others."""

    def __init__(self, encoded: bytes) -> None:
        if len(encoded) != _MLKEM_SIZE + _X25519_SIZE:
            raise ValueError("not an X-Wing public key")
        self._encoded = encoded
        self.hpke_key = hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(encoded[:_MLKEM_SIZE]),
            X25519PublicKey.from_public_bytes(encoded[_MLKEM_SIZE:]),
        )

    def public_bytes(self, encoding: Encoding, format: PublicFormat) -> bytes:
        """SubjectPublicKeyInfo, in DER or PEM."""
        from Crypto.IO import PEM

        if format is not PublicFormat.SubjectPublicKeyInfo:
            raise ValueError("X-Wing public keys are written as SubjectPublicKeyInfo only")
        der = _SPKI_PREFIX + self._encoded
        return der if encoding is Encoding.DER else PEM.encode(der, "PUBLIC KEY").encode() + b"\n"


class XWingPrivateKey:
    """`seed` is 32 bytes. Raises `ValueError` for others."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_SIZE:
            raise ValueError("not an X-Wing private key")
        self._seed = seed
        expanded = hashlib.shake_256(seed).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.hpke_key = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self._public_key = XWingPublicKey(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> XWingPrivateKey:
        return cls(os.urandom(_SEED_SIZE))

    def public_key(self) -> XWingPublicKey:
        return self._public_key

    def private_bytes(
        self, encoding: Encoding, format: PrivateFormat, encryption_algorithm: KeySerializationEncryption
    ) -> bytes:
        """Plain PKCS#8, in DER."""
        from Crypto.IO import PKCS8

        if (encoding, format) != (Encoding.DER, PrivateFormat.PKCS8) or not isinstance(
            encryption_algorithm, NoEncryption
        ):
            raise ValueError("X-Wing private keys are written as plain PKCS#8 in DER only")
        return PKCS8.wrap(self._seed, _OID, key_params=None)


def load_public_key(der: bytes) -> XWingPublicKey:
    """Read a SubjectPublicKeyInfo.

    Raises `ValueError` for bad keys, `UnsupportedAlgorithm` for other kinds of key.
    """
    if not der.startswith(_SPKI_PREFIX):
        raise UnsupportedAlgorithm("not an X-Wing public key")
    return XWingPublicKey(der[len(_SPKI_PREFIX) :])


def load_private_key(der: bytes, passphrase: bytes | None) -> XWingPrivateKey:
    """Read PKCS#8, encrypted or not.

    Raises `ValueError` when it does not open or is malformed, `UnsupportedAlgorithm` for other kinds of key.
    """
    from Crypto.IO import PKCS8

    oid, seed, parameters = PKCS8.unwrap(der, passphrase)
    if oid != _OID or parameters is not None:
        raise UnsupportedAlgorithm("not an X-Wing private key")
    return XWingPrivateKey(seed)
