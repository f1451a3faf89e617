"""Payload ciphers, each behind the same small interface.

A suite turns a 32-byte key and associated data into an encryptor of a stream and a decryptor of a whole
payload. Both AEADs come from libraries: AES-256-EAX (Bellare, Rogaway, Wagner 2004) from PyCryptodome,
Cobblestone-256 (C2SP chunked-encryption: HKDF, then AES-256-GCM in 16 KiB chunks) from `cryptography`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from .errors import AuthenticationError

__all__ = ["DEFAULT_SUITE", "SUITES", "Suite", "eax_decrypt", "eax_encrypt"]

DEFAULT_SUITE = "aes-eax"
STEP = 1 << 20
"""Bytes handled at a time: small enough for the cache, large enough that Python's share vanishes."""


class Suite(ABC):
    name: str
    head: int
    """Offset in the payload at which `decrypt` leaves the plaintext."""

    @abstractmethod
    def payload_size(self, size: int) -> int:
        """Length of the payload that `size` bytes of plaintext become."""

    @abstractmethod
    def encrypt(
        self, key: bytes, associated: bytes, plaintext: Iterable[bytes | memoryview], write: Callable
    ) -> Callable[[], tuple[int, bytes]] | None:
        """Encrypt the stream `plaintext`, handing each piece of the payload to `write` in order.

        Returns None, or `(offset, bytes)` that belongs at that offset of the payload and was not known
        when its place was written (zeros stand there).
        """

    @abstractmethod
    def decrypt(self, key: bytes, associated: bytes, payload: memoryview) -> slice:
        """Decrypt `payload` in place and return where in it the plaintext now stands, always from `head` on.

        Raises `AuthenticationError` when anything does not fit; the caller then wipes the buffer.
        """


def _pieces(data: memoryview) -> Iterator[memoryview]:
    for start in range(0, len(data), STEP):
        yield data[start : start + STEP]


def _altered() -> AuthenticationError:
    return AuthenticationError("the payload was altered, cut short or extended after sealing")


# ---------------------------------------------------------------------------------------------------------
# AES-EAX: nonce (16) | tag (16) | ciphertext. The raw layout uses the same three fields with a 16-byte key.

EAX_OVERHEAD = 32


def eax_encrypt(
    key: bytes, associated: bytes, plaintext: Iterable[bytes | memoryview], write: Callable
) -> tuple[int, bytes]:
    """Write nonce, a place for the tag, and the ciphertext; return the tag and its offset."""
    from Crypto.Cipher import AES

    nonce = os.urandom(16)
    cipher = AES.new(key, AES.MODE_EAX, nonce=nonce, mac_len=16)
    cipher.update(associated)
    write(nonce)
    write(bytes(16))
    for piece in plaintext:
        write(cipher.encrypt(piece))
    return 16, cipher.digest()


def eax_decrypt(key: bytes, associated: bytes, payload: memoryview) -> slice:
    """Decrypt `nonce | tag | ciphertext` in place; the plaintext replaces the ciphertext."""
    from Crypto.Cipher import AES

    if len(payload) < EAX_OVERHEAD:
        raise _altered()
    cipher = AES.new(key, AES.MODE_EAX, nonce=bytes(payload[:16]), mac_len=16)
    cipher.update(associated)
    for piece in _pieces(payload[EAX_OVERHEAD:]):
        cipher.decrypt(piece, output=piece)
    try:
        cipher.verify(bytes(payload[16:32]))
    except ValueError:
        raise _altered() from None
    return slice(EAX_OVERHEAD, len(payload))


class AesEax(Suite):
    name = "aes-eax"
    head = EAX_OVERHEAD

    def payload_size(self, size: int) -> int:
        return size + EAX_OVERHEAD

    def encrypt(self, key, associated, plaintext, write):
        return eax_encrypt(key, associated, plaintext, write)

    def decrypt(self, key, associated, payload):
        return eax_decrypt(key, associated, payload)


# ---------------------------------------------------------------------------------------------------------


class Cobblestone256(Suite):
    name = "cobblestone-256"
    head = 0
    chunk, tag, prefix = 16384, 16, 56

    def payload_size(self, size: int) -> int:
        # A plaintext that fills its last chunk is followed by an empty final chunk.
        return self.prefix + size + self.tag * (size // self.chunk + 1)

    def encrypt(self, key, associated, plaintext, write):
        from cryptography.cobblestone import Cobblestone256Encryptor

        cipher = Cobblestone256Encryptor(key, associated)
        for piece in plaintext:
            write(cipher.update(piece))
        write(cipher.finalize())
        return None

    def decrypt(self, key, associated, payload):
        from cryptography.cobblestone import Cobblestone256Decryptor
        from cryptography.exceptions import InvalidTag

        cipher, end = Cobblestone256Decryptor(key, associated), 0
        try:
            for piece in _pieces(payload):
                # Plaintext never catches up with the payload still to be read, but may overlap this piece.
                end += cipher.update_into(bytes(piece), payload[end:])
            rest = cipher.finalize()
        except InvalidTag:
            raise _altered() from None
        payload[end : end + len(rest)] = rest
        return slice(0, end + len(rest))


SUITES: dict[str, Suite] = {suite.name: suite for suite in (AesEax(), Cobblestone256())}
