"""Seal and open bytes, files and bundles of them, in either layout of docs/format.md.

The keys are those of the context (`tvm_secret.use`), which are by default those in the current folder.

>>> import tvm_secret as secret
>>> sealed = secret.seal(b"a model", content_type="model/onnx")
>>> secret.inspect(sealed).content_type
'model/onnx'
>>> with secret.unseal(sealed, content_type="model/onnx") as plain:
...     bytes(plain)
b'a model'
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from . import context
from .errors import (
    AuthenticationError,
    ContentTypeError,
    IdentityError,
    NotSealedError,
    RecipientError,
    SecretError,
    SignatureError,
)
from .files import atomic_writer
from .header import BLOCK, CONTENT_TYPES, MAGIC, Header, read_header
from .memory import SecretBuffer
from .recipients import Identity, Recipient, load_recipients
from .signing import Signer
from .suites import DEFAULT_SUITE, EAX_OVERHEAD, STEP, SUITES, eax_decrypt, eax_encrypt

__all__ = [
    "Session",
    "inspect",
    "open_stream",
    "rewrap",
    "seal",
    "seal_file",
    "seal_json",
    "unseal",
    "unseal_json",
]

LAYOUTS = ("sealed", "raw")
_RAW_KEY_SIZE = 16

Sealed = "bytes | bytearray | memoryview | str | Path"


# ------------------------------------------------------------------------------------------------- sealing


class Session:
    """One session key, wrapped once to each recipient, for one value or for the members of one bundle.

    Values sealed in one session share the wrapped keys, so that opening them all costs one private-key
    operation; each has its own salt and with it its own payload key.
    """

    def __init__(
        self,
        recipients: Iterable[str | Path | Recipient] | None = None,
        *,
        suite: str = DEFAULT_SUITE,
        policy: Mapping[str, str] | None = None,
        bundle: bool = False,
        signer: Signer | None = None,
    ) -> None:
        if suite not in SUITES:
            raise SecretError(f"unknown suite {suite!r}; there are {', '.join(SUITES)}")
        chosen = context.current().recipients() if recipients is None else load_recipients(recipients)
        if not chosen:
            raise RecipientError("nobody to seal to: the list of recipients is empty")
        self._suite = suite
        self._policy = dict(policy or {})
        self._bundle = secrets.token_hex(16) if bundle else None
        self._signer = signer or context.current().signer()
        self._key = os.urandom(32)
        self._stanzas = [recipient.wrap(self._key) for recipient in chosen]

    @classmethod
    def to_self(cls, **options: Any) -> Session:
        """A session for values that this process's own identity opens again: an import's results, say."""
        keys = context.current()
        return cls([keys.identity().recipient()], signer=keys.own_signer(), **options)

    def seal(self, plaintext: bytes | memoryview, *, content_type: str) -> bytes:
        return self.seal_pieces([memoryview(plaintext)], len(plaintext), content_type=content_type)

    def seal_json(self, value: Any, *, content_type: str) -> bytes:
        return self.seal(json.dumps(value).encode(), content_type=content_type)

    def seal_pieces(self, plaintext: Iterable[bytes | memoryview], size: int, *, content_type: str) -> bytes:
        output = io.BytesIO()
        self.seal_stream(plaintext, size, output, content_type=content_type)
        return output.getvalue()

    def seal_stream(
        self, plaintext: Iterable[bytes | memoryview], size: int, output: BinaryIO, *, content_type: str
    ) -> None:
        """Seal `size` bytes to the seekable `output`, reading back what it wrote only to sign it.

        Raises `SecretError` when `plaintext` gives another number of bytes.
        """
        header = self._header(content_type, size)
        start = output.tell()
        output.write(bytes(header))
        payload_start = output.tell()
        digest = hashlib.sha256() if self._signer else None
        mended = header.suite.encrypt(
            header.payload_key(self._key), header.core_bytes, _exactly(plaintext, size), output.write
        )
        if mended:
            output.seek(payload_start + mended[0])
            output.write(mended[1])
        if self._signer:
            output.seek(payload_start)
            while piece := output.read(STEP):
                digest.update(piece)
            header.sign(self._signer, digest.digest())
        header.authenticate(self._key)
        output.seek(start)
        output.write(bytes(header))
        output.seek(0, os.SEEK_END)

    def _header(self, content_type: str, size: int) -> Header:
        if content_type not in CONTENT_TYPES:
            raise ContentTypeError(f"unknown content type {content_type!r}")
        core = {"content": content_type, "salt": secrets.token_hex(32), "size": size, "suite": self._suite}
        if self._bundle:
            core["bundle"] = self._bundle
        if self._policy:
            core["policy"] = self._policy
        if self._signer:
            core["signer"] = self._signer.key_id
        header = Header(core, self._stanzas)
        if self._signer:
            header.sign(self._signer, bytes(32))  # holds the place until the payload is known
        return header


def _exactly(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[memoryview]:
    """Pass on `pieces` in steps that suit the ciphers; raise unless they add up to `size` bytes."""
    seen = 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        seen += len(view)
        for start in range(0, len(view), STEP):
            yield view[start : start + STEP]
    if seen != size:
        raise SecretError(f"the input changed while it was sealed: {seen} bytes instead of {size}")


def seal(
    plaintext: bytes | bytearray | memoryview,
    *,
    content_type: str,
    recipients: Iterable[str | Path | Recipient] | None = None,
    suite: str = DEFAULT_SUITE,
    layout: str = "sealed",
    policy: Mapping[str, str] | None = None,
) -> bytes:
    """Encrypt `plaintext` to `recipients`, and sign it where the context has a key for that.

    Args:
        plaintext: the bytes to seal.
        content_type: what they are, such as "model/onnx", "input-shapes" or "inputs" (docs/format.md lists
            them all); authenticated, and checked when the value is opened.
        recipients: public keys, as PEM files, folders of them, or both. Default: the context's.
        suite: the payload's cipher: "aes-eax" (AES-256-EAX) or "cobblestone-256" (C2SP chunked encryption,
            several times faster).
        layout: "sealed", or "raw" for the headerless layout of the original system: one RSA recipient,
            AES-128, neither content type nor signature nor policy.
        policy: conditions for opening: "not_before" and "not_after" (UTC, as "2027-01-31T12:00:00Z") and
            "device_id" (from `tvmc inspect --device`).

    Returns:
        The sealed bytes: a header, padded to a multiple of 4096 bytes, and the payload.

    Raises:
        RecipientError: there is nobody to seal to, or a public key cannot be used.
        ContentTypeError: the content type is unknown.
        PolicyError: a condition is unknown or malformed.
        SecretError: the suite or the layout is unknown.

    Examples:
        >>> import tvm_secret as secret
        >>> policy = {"not_after": "2099-12-31T00:00:00Z"}
        >>> sealed = secret.seal(b"a model", content_type="model/onnx", policy=policy)
        >>> secret.inspect(sealed).policy
        {'not_after': '2099-12-31T00:00:00Z'}
    """
    output = io.BytesIO()
    _seal_to(output, [memoryview(plaintext)], len(plaintext), content_type, recipients, suite, layout, policy)
    return output.getvalue()


def seal_file(
    source: str | Path | Sequence[str | Path],
    destination: str | Path,
    *,
    content_type: str,
    recipients: Iterable[str | Path | Recipient] | None = None,
    suite: str = DEFAULT_SUITE,
    layout: str = "sealed",
    policy: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Seal a file, or the several files of one model, into `destination`, in constant memory.

    The destination appears when it is complete, and not at all after an error.

    Args:
        source: a file, the folder of a SavedModel, or the two files of an MXNet model.
        destination: the sealed file to write.
        content_type: as in `seal`, and so are `recipients`, `suite`, `layout` and `policy`.
        progress: called as `progress(done, total)`, in bytes, while it works.

    Raises:
        SecretError: a source is missing, empty, or not what the content type consists of; otherwise as
            `seal`.

    Examples:
        >>> import tvm_secret as secret
        >>> secret.seal_file("model.onnx", "again.sealed", content_type="model/onnx")
        >>> secret.inspect("again.sealed").content_type
        'model/onnx'
    """
    from .formats import plain_source

    paths = [source] if isinstance(source, (str, Path)) else source
    size, read = plain_source([Path(path) for path in paths], content_type)
    pieces = _reporting(read(), size, progress) if progress else read()
    with atomic_writer(destination) as output:
        _seal_to(output, pieces, size, content_type, recipients, suite, layout, policy)


def _reporting(pieces: Iterable[bytes], size: int, progress: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        progress(done, size)


def _seal_to(output, pieces, size, content_type, recipients, suite, layout, policy) -> None:
    if layout == "sealed":
        session = Session(recipients, suite=suite, policy=policy)
        session.seal_stream(pieces, size, output, content_type=content_type)
    elif layout == "raw":
        _seal_raw(output, pieces, size, content_type, recipients, policy)
    else:
        raise SecretError(f"unknown layout {layout!r}; there are {' and '.join(LAYOUTS)}")


def seal_json(value: Any, *, content_type: str, **options: Any) -> bytes:
    """Seal `value` as JSON.

    Args:
        value: whatever `json.dumps` takes. Input shapes are `{name: [dimension, ...]}`, where a string stands
            for a symbolic dimension.
        content_type: as in `seal`, and so are the other options.

    Returns:
        The sealed bytes.

    Raises:
        TypeError: JSON cannot hold the value; otherwise as `seal`.

    Examples:
        >>> import tvm_secret as secret
        >>> sealed = secret.seal_json({"data": ["batch", 3, 224, 224]}, content_type="input-shapes")
        >>> secret.unseal_json(sealed, content_type="input-shapes")
        {'data': ['batch', 3, 224, 224]}
    """
    return seal(json.dumps(value).encode(), content_type=content_type, **options)


# ------------------------------------------------------------------------------------------------- opening


def unseal(sealed: Sealed, *, content_type: str | tuple[str, ...]) -> SecretBuffer:
    """Verify, decrypt and return what `sealed` holds, in memory that is wiped when it is closed.

    Every check comes before the first byte of plaintext is handed out: content type, signature (where the
    context names signers), header tag, policy, payload digest, payload tag.

    Args:
        sealed: sealed bytes, or the path of a sealed file.
        content_type: what it has to hold, or several of which it has to hold one.

    Returns:
        A buffer to be used in a `with` block: `bytes(buffer)` copies it, `buffer.view` is a memoryview of
        the memory itself.

    Raises:
        NotSealedError: the bytes are in neither layout.
        ContentTypeError: it holds something else.
        SignatureError: signers are set, and none of them vouches for it.
        IdentityError: there is no private key, or not one of its recipients'.
        AuthenticationError: it was altered, cut or extended.
        PolicyError: a condition for opening does not hold.
    """
    return open_value(sealed, content_type=content_type)[0]


def open_value(sealed: Sealed, *, content_type: str | tuple[str, ...]) -> tuple[SecretBuffer, Header | None]:
    """As `unseal`, with the authenticated header (None for the raw layout)."""
    with _opened(sealed) as (file, size):
        return open_stream(file, size, content_type=content_type)


def unseal_json(sealed: Sealed, *, content_type: str) -> Any:
    """Open `sealed`, as `unseal` does, and parse it as JSON.

    Raises:
        ContentTypeError: it holds no JSON; otherwise as `unseal`.
    """
    with unseal(sealed, content_type=content_type) as secret:
        try:
            return json.loads(bytes(secret))
        except (ValueError, RecursionError):
            raise ContentTypeError(f"the sealed {content_type} is not JSON") from None


def open_stream(
    file: BinaryIO, size: int, *, content_type: str | tuple[str, ...]
) -> tuple[SecretBuffer, Header | None]:
    """Open the `size` bytes of `file` from here on; the header is None for the raw layout."""
    wanted = (content_type,) if isinstance(content_type, str) else tuple(content_type)
    start = file.tell()
    if size == 0:
        raise NotSealedError("it is empty")
    if file.read(len(MAGIC)) != MAGIC:
        file.seek(start)
        return _unseal_raw(file, size, wanted), None
    file.seek(start)
    header = read_header(file, size)
    header.check_content_type(wanted)
    keys = context.current()
    trust = keys.trust()
    header.check_signature(trust)
    session_key = _session_key(header, keys.identity())
    header.check_tag(session_key)
    header.check_policy()
    buffer = SecretBuffer(header.core["size"])
    digest = hashlib.sha256() if trust.required else None
    pieces = _pieces(file, header.payload_size, digest.update if digest else None)
    key = header.payload_key(session_key)
    try:
        with contextlib.closing(pieces):
            header.suite.decrypt(key, header.core_bytes, pieces, buffer.view)
        if digest:
            header.check_digest(digest.digest())
    except BaseException:
        buffer.close()
        raise
    return buffer, header


def _pieces(
    file: BinaryIO, size: int, seen: Callable[[memoryview], None] | None = None
) -> Generator[memoryview, None, None]:
    """The next `size` bytes of `file` in pieces of `STEP`, each to be used before the next is asked for.

    A thread reads ahead, so that the disk and the cipher work at the same time; whoever stops early closes
    the iterator, which ends it. `seen` is shown each piece.
    """

    def fill(view: memoryview) -> memoryview:
        done = 0
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise AuthenticationError("the file was cut short")
            done += count
        return view

    def shown(view: memoryview) -> memoryview:
        if seen:
            seen(view)
        return view

    if size <= STEP:
        yield shown(fill(memoryview(bytearray(size))))
        return
    from concurrent.futures import ThreadPoolExecutor  # small files need not wait for its import

    # While one buffer is in use, two are being filled: few enough to stay in the cache.
    buffers = itertools.cycle([memoryview(bytearray(STEP)) for _ in range(3)])
    with ThreadPoolExecutor(1) as reader:
        ahead = deque()
        for start in range(0, size, STEP):
            ahead.append(reader.submit(fill, next(buffers)[: size - start]))
            if len(ahead) == 3:
                yield shown(ahead.popleft().result())
        while ahead:
            yield shown(ahead.popleft().result())


class _LastSessionKey(threading.local):
    """The last stanza unwrapped, so that a bundle's members cost one private-key operation together."""

    enabled = False
    entry: tuple[Identity, dict, bytes] | None = None


_last = _LastSessionKey()


@contextlib.contextmanager
def shared_unwrapping() -> Iterator[None]:
    """Within the block, values that carry the same wrapped key unwrap it once."""
    _last.enabled, _last.entry = True, None
    try:
        yield
    finally:
        _last.enabled, _last.entry = False, None


def _session_key(header: Header, identity: Identity) -> bytes:
    stanza = next((s for s in header.recipients if s["key"] == identity.key_id), None)
    if stanza is None:
        raise IdentityError(
            f"it is sealed to {_names(header)}, and this private key is {identity.key_id}: "
            "wrong key, or not among its recipients"
        )
    if _last.entry and _last.entry[0] is identity and _last.entry[1] == stanza:
        return _last.entry[2]
    key = identity.unwrap(stanza)
    if len(key) != 32:
        raise AuthenticationError("the wrapped session key has a wrong length")
    if _last.enabled:
        _last.entry = (identity, stanza, key)
    return key


def _names(header: Header) -> str:
    first = header.recipients[0]["key"]
    more = len(header.recipients) - 1
    return f"{first} and {more} more" if more else first


@contextlib.contextmanager
def _opened(sealed: Sealed) -> Iterator[tuple[BinaryIO, int]]:
    """The bytes of `sealed` as a file, and how many they are; errors gain the file's name."""
    if isinstance(sealed, (bytes, bytearray, memoryview)):
        yield io.BytesIO(sealed), len(sealed)
        return
    if not isinstance(sealed, (str, os.PathLike)):
        raise NotSealedError(
            f"sealed bytes (or the path of a sealed file) are wanted, not {type(sealed).__name__}: "
            "seal it with tvm_secret.seal, or 'tvmc encrypt' for a file"
        )
    with naming(sealed), open(sealed, "rb") as file:
        yield file, os.fstat(file.fileno()).st_size


@contextlib.contextmanager
def naming(name: str | Path) -> Iterator[None]:
    """Put `name` before the message of a `SecretError` raised in the block."""
    try:
        yield
    except SecretError as error:
        raise type(error)(f"{name}: {error}") from None


# ----------------------------------------------------------------------------------------------- no secrets


def inspect(sealed: Sealed) -> Header:
    """The header of a value in the sealed layout, as it claims to be: no key is needed, nothing is proved.

    Args:
        sealed: sealed bytes, or the path of a sealed file.

    Returns:
        The header. Its `content_type`, `signer` (a key id, or None), `policy` and `recipients` (one mapping
        each, with `type` and `key`, the key id) say what `tvmc inspect` prints.

    Raises:
        NotSealedError: it is something else, or in the raw layout, which has no header.
        AuthenticationError: the header is malformed, or the size does not fit it.

    Examples:
        >>> import tvm_secret as secret
        >>> header = secret.inspect("model.onnx.sealed")
        >>> header.content_type, len(header.recipients)
        ('model/onnx', 1)
    """
    with _opened(sealed) as (file, size):
        return read_header(file, size)


def verify(sealed: Sealed) -> Header:
    """Check the signature over header and payload against the context's signers, without any private key.

    Args:
        sealed: sealed bytes, or the path of a sealed file.

    Returns:
        The header that the signature covers.

    Raises:
        SignatureError: no signers are set, or none of them vouches for it.
        AuthenticationError, NotSealedError: as `inspect`.

    Examples:
        >>> import tvm_secret as secret
        >>> with secret.use(signers="signing_public_key.pem"):
        ...     secret.verify("model.onnx.sealed").content_type
        'model/onnx'
    """
    with _opened(sealed) as (file, size):
        return verify_stream(file, size)


def verify_stream(file: BinaryIO, size: int) -> Header:
    """As `verify`, for the `size` bytes of `file` from here on, in constant memory."""
    trust = context.current().trust()
    if not trust.required:
        raise SignatureError("no signer to verify against: give --signer or set TVM_SECRET_SIGNERS")
    header = read_header(file, size)
    header.check_signature(trust)
    digest, left = hashlib.sha256(), header.payload_size
    while left and (piece := file.read(min(STEP, left))):
        digest.update(piece)
        left -= len(piece)
    header.check_digest(digest.digest())
    return header


# ------------------------------------------------------------------------------------------------- rewrapping


def rewrapped(file: BinaryIO, size: int, recipients: list[Recipient], stanzas: dict | None = None) -> Header:
    """The header of the sealed value at `file` for other recipients, core and signature as they are.

    Leaves `file` at the payload. `stanzas` is a memory that the members of a bundle share, so that their
    session key is wrapped once.
    """
    header = read_header(file, size)
    keys = context.current()
    header.check_signature(keys.trust())
    session_key = _session_key(header, keys.identity())
    header.check_tag(session_key)
    stanzas = {} if stanzas is None else stanzas
    if session_key not in stanzas:
        stanzas[session_key] = [recipient.wrap(session_key) for recipient in recipients]
    renewed = header.replace_recipients(stanzas[session_key])
    renewed.authenticate(session_key)
    return renewed


def rewrap(
    source: str | Path, destination: str | Path, recipients: Iterable[str | Path | Recipient] | None = None
) -> None:
    """Write `source` to `destination` for other recipients, in constant memory, payload untouched.

    Needs an identity that opens `source`. The owner's signature, if any, stays valid. Where `destination` is
    `source` itself and the header fits into one block of 4096 bytes, that block alone is written. For an
    artefact there is `tvm_secret.artefact.rewrap`.

    Args:
        source: the path of a sealed file.
        destination: the path to write; it may be `source`.
        recipients: public keys, as PEM files, folders of them, or both; they replace those of `source`.
            Default: the context's.

    Raises:
        IdentityError: this process's private key is not among the recipients of `source`.
        RecipientError: there is nobody to seal to, or a public key cannot be used.
        AuthenticationError, NotSealedError, SignatureError: as `unseal`.

    Examples:
        >>> import tvm_secret as secret
        >>> secret.rewrap(
        ...     "model.onnx.sealed", "two.sealed", ["rsa_public_key.pem", "stranger/rsa_public_key.pem"]
        ... )
        >>> len(secret.inspect("two.sealed").recipients)
        2
    """
    chosen = context.current().recipients() if recipients is None else load_recipients(recipients)
    with _opened(source) as (file, size):
        renewed = bytes(rewrapped(file, size, chosen))
        payload_start = file.tell()
        if len(renewed) == payload_start == BLOCK and _same_file(source, destination):
            _replace_block(source, renewed)
            return
        with atomic_writer(destination) as output:
            output.write(renewed)
            copy_rest(file, output, payload_start, size)


def _same_file(source: str | Path, destination: str | Path) -> bool:
    return os.path.exists(destination) and os.path.samefile(source, destination)


def _replace_block(path: str | Path, block: bytes) -> None:
    """Overwrite the first block of `path`: one page in the kernel, so a kill leaves the old or the new."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, block, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_rest(file: BinaryIO, output: BinaryIO, start: int, stop: int) -> None:
    """Append bytes `start` to `stop` of `file` to `output`, inside the kernel where it can."""
    output.flush()
    while start < stop:
        try:
            count = os.copy_file_range(file.fileno(), output.fileno(), stop - start, start)
        except OSError:  # across file systems, or an old kernel
            count = os.sendfile(output.fileno(), file.fileno(), start, stop - start)
        if count == 0:
            raise AuthenticationError("the file was cut short")
        start += count
    output.seek(0, os.SEEK_END)


# ------------------------------------------------------------------------------------------------- raw layout


def _seal_raw(output, pieces, size, content_type, recipients, policy) -> None:
    from .recipients.rsa import RsaRecipient

    if policy or context.current().signer():
        raise SecretError("the raw layout has no header: it can be neither signed nor given a policy")
    if content_type.startswith("artefact/"):
        raise SecretError("artefacts have the sealed layout only")
    chosen = context.current().recipients() if recipients is None else load_recipients(recipients)
    if len(chosen) != 1 or not isinstance(chosen[0], RsaRecipient):
        raise RecipientError("the raw layout is for exactly one RSA recipient")
    key = os.urandom(_RAW_KEY_SIZE)
    output.write(RsaRecipient(chosen[0].public_key, "sha1").wrap_raw(key))
    payload_start = output.tell()
    offset, tag = eax_encrypt(key, b"", _exactly(pieces, size), output.write)
    output.seek(payload_start + offset)
    output.write(tag)
    output.seek(0, os.SEEK_END)


def _unseal_raw(file: BinaryIO, size: int, wanted: tuple[str, ...]) -> SecretBuffer:
    keys = context.current()
    plain = NotSealedError(
        "it is not sealed to this private key, in neither layout; a plain file is sealed with 'tvmc encrypt'"
    )
    if any(name.startswith("artefact/") for name in wanted):
        raise NotSealedError("it is not sealed (artefacts have the sealed layout only)")
    keys.trust().verifier(None)
    identity = keys.identity()
    wrapped_size = getattr(identity, "wrapped_size", None)
    if wrapped_size is None or size < wrapped_size + EAX_OVERHEAD:
        raise plain
    try:
        key = identity.unwrap_raw(file.read(wrapped_size), "sha1")
    except AuthenticationError:
        raise plain from None
    if len(key) != _RAW_KEY_SIZE:
        raise plain
    size -= wrapped_size
    buffer = SecretBuffer(size - EAX_OVERHEAD)
    try:
        with contextlib.closing(_pieces(file, size)) as pieces:
            eax_decrypt(key, b"", pieces, buffer.view)
    except BaseException:
        buffer.close()
        raise
    return buffer
