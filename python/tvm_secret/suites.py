"""Payload ciphers, each behind the same small interface.

A suite turns a 32-byte key and associated data into an encryptor and a decryptor of a stream. Both AEADs
come from libraries: AES-256-EAX (Bellare, Rogaway, Wagner 2004) from PyCryptodome, Cobblestone-256 (C2SP
chunked-encryption: HKDF, then AES-256-GCM in 16 KiB chunks) from `cryptography`.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable

from .errors import AuthenticationError

__all__ = ["DEFAULT_SUITE", "SUITES", "Suite", "eax_decrypt", "eax_encrypt"]

DEFAULT_SUITE = "aes-eax"
STEP = 1 << 20
"""Bytes handled at a time: small enough for the cache, large enough that Python's share vanishes."""


class Suite(ABC):
    name: str

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
    def decrypt(
        self, key: bytes, associated: bytes, payload: Iterable[memoryview], plaintext: memoryview
    ) -> None:
        """Decrypt `payload`, which comes in pieces of `STEP` bytes and one last, into `plaintext`.

        The length of `plaintext` is that for which `payload_size` is the payload's. What stands in it may be
        used only once this has returned. Raises `AuthenticationError` when anything does not fit; the caller
        then wipes it.
        """


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


def eax_decrypt(key: bytes, associated: bytes, payload: Iterable[memoryview], plaintext: memoryview) -> None:
    """Decrypt `nonce | tag | ciphertext` (see `Suite.decrypt`)."""
    from Crypto.Cipher import AES

    pieces, end = iter(payload), 0
    piece = next(pieces, memoryview(b""))
    nonce, tag, piece = bytes(piece[:16]), bytes(piece[16:32]), piece[EAX_OVERHEAD:]
    if len(tag) != 16:
        raise _altered()
    cipher = AES.new(key, AES.MODE_EAX, nonce=nonce, mac_len=16)
    cipher.update(associated)
    while piece:
        if end + len(piece) > len(plaintext):
            raise _altered()
        cipher.decrypt(piece, output=plaintext[end : end + len(piece)])
        end += len(piece)
        piece = next(pieces, memoryview(b""))
    try:
        cipher.verify(tag)
    except ValueError:
        raise _altered() from None
    if end != len(plaintext):
        raise _altered()


class AesEax(Suite):
    name = "aes-eax"

    def payload_size(self, size: int) -> int:
        return size + EAX_OVERHEAD

    def encrypt(self, key, associated, plaintext, write):
        return eax_encrypt(key, associated, plaintext, write)

    def decrypt(self, key, associated, payload, plaintext):
        eax_decrypt(key, associated, payload, plaintext)


# ---------------------------------------------------------------------------------------------------------


class Cobblestone256(Suite):
    name = "cobblestone-256"
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

    def decrypt(self, key, associated, payload, plaintext):
        from cryptography.cobblestone import Cobblestone256Decryptor
        from cryptography.exceptions import InvalidTag

        cipher, end = Cobblestone256Decryptor(key, associated), 0
        try:
            for piece in payload:
                end += cipher.update_into(piece, plaintext[end:])
            rest = cipher.finalize()
        except (InvalidTag, ValueError):
            raise _altered() from None
        if end + len(rest) != len(plaintext):
            raise _altered()
        plaintext[end:] = rest


SUITES: dict[str, Suite] = {suite.name: suite for suite in (AesEax(), Cobblestone256())}
