"""What the targets share: limits that every input has to keep, fixed keys, and edits of a good file."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy  # noqa: F401  (before memory is limited, in which its BLAS takes a pool of its own)
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tvm_secret.recipients import Identity, Recipient
from tvm_secret.recipients.rsa import RsaIdentity

SECONDS = 5
SPARE = 64 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def limits(size: int, spare: int = SPARE) -> Iterator[None]:
    """Raise `MemoryError` at over twice `size` bytes plus 64 MB, `TimeoutError` after 5 s of processor time.

    Memory is what the kernel counts as private and writable (RLIMIT_DATA), whoever allocates it.
    """
    in_use = int(Path("/proc/self/statm").read_text().split()[5]) * _PAGE
    unlimited = resource.getrlimit(resource.RLIMIT_DATA)
    before = signal.signal(signal.SIGVTALRM, _too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (in_use + 2 * size + spare, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, unlimited)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def run(target: ModuleType, data: bytes) -> None:
    """Let `target` check one input within the limits."""
    with limits(len(data), getattr(target, "SPARE", SPARE)):
        target.check(data)


@functools.cache
def vectors() -> dict:
    """The known answers of format version 1: sealed files and the keys that open them."""
    path = Path(__file__).parent.parent / "tests" / "vectors" / "v1.json"
    return json.loads(path.read_text())


class VectorIdentity(RsaIdentity):
    """The private key of the vectors, which remembers what it decrypted: RSA would bound the speed."""

    def __init__(self) -> None:
        super().__init__(load_pem_private_key(vectors()["private_key"].encode(), None))
        self._decrypt = functools.lru_cache(64)(super()._decrypt)


class KnownKey(Recipient, Identity):
    """Recipient and identity of one session key that the target knows, so that it can authenticate anything.

    What stands behind the header's authentication is then within reach of the fuzzer.
    """

    key_id = "0" * 32
    file_names = ("", "")
    session_key = bytes(range(32))

    def wrap(self, session_key: bytes) -> dict[str, str]:
        return {"type": "known", "key": self.key_id, "wrapped": session_key.hex()}

    def unwrap(self, stanza: dict[str, str]) -> bytes:
        wrapped = stanza.get("wrapped", "")
        return bytes.fromhex(wrapped) if len(wrapped) == 64 else self.session_key

    def recipient(self) -> KnownKey:
        return self

    def to_pem(self) -> bytes:
        raise NotImplementedError


def edited(good: bytes, script: bytes) -> bytes:
    """`good` after the edits that `script` encodes, six bytes each: what, where (3), how long, with what."""
    data = bytearray(good)
    for start in range(0, len(script) - 5, 6):
        what, *where, length, value = script[start : start + 6]
        position = int.from_bytes(bytes(where), "little") % (len(data) + 1)
        span = slice(position, position + length)
        match what % 7:
            case 0:
                data[position : position + 1] = bytes([value])
            case 1:
                data[span] = bytes(byte ^ value for byte in data[span])
            case 2:
                del data[span]
            case 3:
                data[position:position] = bytes([value]) * length
            case 4:
                del data[position:]
            case 5:
                data[position:position] = data[value * 16 : value * 16 + length]
            case 6:
                data[span] = (int.from_bytes(data[span], "little") + value).to_bytes(
                    len(data[span]) + 1, "little"
                )[: len(data[span])]
    return bytes(data)


@contextlib.contextmanager
def as_file(data: bytes) -> Iterator[Path]:
    """The path of an anonymous file in memory with these contents."""
    descriptor = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
