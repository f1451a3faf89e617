"""Post-quantum hybrid recipients: HPKE (RFC 9180) with the KEM X-Wing, ML-KEM-768 beside X25519.

The suite is base mode, KEM 0x647a (MLKEM768-X25519 in draft-ietf-hpke-pq-05, X-Wing in
draft-connolly-cfrg-xwing-kem-10), KDF HKDF-SHA256, AEAD ChaCha20Poly1305: the one that the former draft gives
test vectors for. The session key stays secret as long as either half of the KEM holds.

The stanza is `{"type": "hpke-mlkem768-x25519", "key": ..., "wrapped": base64}`; `wrapped` is the encapsulated
key (1120 bytes) and the AEAD's ciphertext of the session key, with empty associated data.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from ..errors import RecipientError
from ..keyfiles import POST_QUANTUM_NAMES, key_id, public_pem
from ..xwing import XWingPrivateKey, XWingPublicKey
from . import Identity, Recipient, Stanza, unopened, wrapped_key

__all__ = ["HpkeIdentity", "HpkeRecipient"]

TYPE = "hpke-mlkem768-x25519"
_INFO = b"tvm-secret/v1/hpke-mlkem768-x25519"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


class HpkeRecipient(Recipient):
    file_names = POST_QUANTUM_NAMES

    def __init__(self, public_key: XWingPublicKey) -> None:
        self._public_key = public_key
        self.key_id = key_id(public_key)

    def wrap(self, session_key: bytes) -> Stanza:
        try:
            wrapped = _SUITE.encrypt(session_key, self._public_key.hpke_key, _INFO)
        except ValueError:  # X25519 with a point of low order
            raise RecipientError(f"the public key {self.key_id} is a weak one: do not seal to it") from None
        return {"type": TYPE, "key": self.key_id, "wrapped": base64.b64encode(wrapped).decode()}

    def to_pem(self) -> bytes:
        return public_pem(self._public_key)


class HpkeIdentity(Identity):
    def __init__(self, private_key: XWingPrivateKey) -> None:
        self._private_key = private_key
        self.key_id = key_id(private_key.public_key())

    def recipient(self) -> HpkeRecipient:
        return HpkeRecipient(self._private_key.public_key())

    def unwrap(self, stanza: Stanza) -> bytes:
        try:
            return _SUITE.decrypt(wrapped_key(stanza, TYPE), self._private_key.hpke_key, _INFO)
        except InvalidTag:
            raise unopened() from None


def recipient_from_key(key: object, text: str, path: Path) -> HpkeRecipient | None:
    return HpkeRecipient(key) if isinstance(key, XWingPublicKey) else None


def identity_from_key(key: object) -> HpkeIdentity | None:
    return HpkeIdentity(key) if isinstance(key, XWingPrivateKey) else None
