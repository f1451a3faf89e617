"""Where plaintext lives: buffers that are locked, kept out of core dumps and wiped.

Python's own `bytes` can be neither locked nor wiped, so decrypted payloads go into anonymous mappings of
our own. Whatever a framework or a compiler copies out of them is out of our hands; docs/threat-model.md says
which copies those are.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import warnings
from types import TracebackType

from .errors import SecretError

__all__ = ["LOCKED_VARIABLE", "SecretBuffer", "harden_process", "require_locked_memory"]

LOCKED_VARIABLE = "TVM_SECRET_REQUIRE_LOCKED_MEMORY"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mlock.argtypes = _libc.munlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_PR_SET_DUMPABLE = 4
_HUGE_PAGE = 2 << 20

_lock_warned = False
_lock_required = False


class SecretBuffer:
    """`size` bytes of page-aligned memory that is locked where the limit allows and wiped on `close`.

    `view` is a writable memoryview of the contents, `bytes(buffer)` an ordinary copy that nobody wipes. Views
    taken before `close` stay mapped afterwards but read as zeros.

    Raises `MemoryError` where there is not enough memory, `SecretError` where it must be locked and cannot.

    >>> with SecretBuffer(5) as secret:
    ...     secret.view[:] = b"hello"
    ...     bytes(secret)
    b'hello'
    """

    def __init__(self, size: int) -> None:
        try:
            # A mapping cannot be empty; the view still is.
            self._map = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:
            raise MemoryError(f"{size} bytes for decrypted data") from None
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._closed = False
        self._map.madvise(mmap.MADV_DONTDUMP)
        if size >= _HUGE_PAGE:
            self._map.madvise(mmap.MADV_HUGEPAGE)  # page faults, not AES, bound fresh memory
        self._locked = _libc.mlock(self._address, len(self._map)) == 0
        if not self._locked:
            _refuse_or_warn()
        self.view = memoryview(self._map)[:size]

    def close(self) -> None:
        """Overwrite the contents with zeros. Idempotent."""
        if not self._closed:
            self._closed = True
            ctypes.memset(self._address, 0, len(self._map))
            if self._locked:
                _libc.munlock(self._address, len(self._map))

    @property
    def closed(self) -> bool:
        return self._closed

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def __len__(self) -> int:
        return len(self.view)

    def __repr__(self) -> str:
        return f"<SecretBuffer of {len(self)} bytes>"

    def __enter__(self) -> SecretBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True) is False:
            self.close()


def harden_process() -> None:
    """Make this process non-dumpable and forbid core files.

    Another user, and a debugger of the same user, then cannot read its memory (ptrace(2), proc(5)); root
    still can. Called before the first private key or session key is used.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def require_locked_memory() -> None:
    """From now on, refuse to decrypt into memory that cannot be locked.

    The environment variable TVM_SECRET_REQUIRE_LOCKED_MEMORY=1 asks for the same.
    """
    global _lock_required
    _lock_required = True


def _refuse_or_warn() -> None:
    global _lock_warned
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    why = f"the limit on locked memory is {limit} bytes (raise it with 'ulimit -l', or encrypt the swap)"
    if _lock_required or os.environ.get(LOCKED_VARIABLE, "0") not in ("", "0"):
        raise SecretError(f"memory for decrypted data cannot be locked: {why}")
    if not _lock_warned:
        _lock_warned = True
        warnings.warn(f"decrypted data may be swapped to disk: {why}", RuntimeWarning, stacklevel=3)
