"""The compiled model: code, interface and weights, each sealed, together in one tar.

The three members carry one random bundle id in their authenticated headers, so that a member of one artefact
cannot stand in for that of another, whoever signed them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .envelope import (
    Session,
    copy_rest,
    naming,
    open_stream,
    rewrapped,
    shared_unwrapping,
    verify_stream,
)
from .errors import AuthenticationError, NotSealedError
from .files import atomic_writer
from .header import Header, read_header
from .memory import SecretBuffer
from .recipients import Recipient, load_recipients

if TYPE_CHECKING:
    import numpy as np  # half the start-up of commands that read headers alone, so `tensors` is imported late

__all__ = [
    "MEMBERS",
    "Interface",
    "Opened",
    "inspect",
    "is_artefact",
    "load",
    "open_artefact",
    "rewrap",
    "save",
    "seal_artefact",
    "verify",
]

MEMBERS = {
    "mod.o": "artefact/object",
    "mod.json": "artefact/interface",
    "mod.params": "artefact/params",
}
"""File name in the tar -> content type, in the order in which they are written."""

_FORMAT = 1
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)

Artefact = "Sequence[bytes] | str | Path"


@dataclass
class TensorInfo:
    name: str
    shape: list[int | str]
    """A string is a symbolic dimension: any size, the same wherever the name recurs."""
    dtype: str


@dataclass
class Interface:
    """How to call the code: what the member `mod.json` holds."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    objects: list[int]
    """Sizes in bytes of the object files that `mod.o` is a concatenation of."""
    entry: str = "main"
    target: str = ""
    features: list[str] = field(default_factory=list)
    """CPU features that the code needs, as /proc/cpuinfo names them."""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = _FORMAT

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Interface:
        try:
            value = json.loads(data)
            if value.get("format") != _FORMAT:
                raise AuthenticationError(
                    f"the artefact has interface format {value.get('format')}, not {_FORMAT}"
                )
            for name in ("inputs", "outputs"):
                value[name] = [TensorInfo(**entry) for entry in value[name]]
            interface = cls(**value)
            interface._check_types()
            return interface
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise AuthenticationError("the artefact's interface is malformed") from None

    def _check_types(self) -> None:
        """Raise `TypeError` unless all fields are of their declared types, which no dataclass looks at."""
        tensors = [*self.inputs, *self.outputs]
        texts = [self.entry, self.target, *self.features, *self.versions, *self.versions.values()]
        texts += [text for info in tensors for text in (info.name, info.dtype)]
        sizes = [size for info in tensors for size in info.shape if not isinstance(size, str)]
        lists = [self.objects, self.features, *(info.shape for info in tensors)]
        well_typed = (
            all(isinstance(text, str) for text in texts)
            and all(type(size) is int and size >= 0 for size in [*sizes, *self.objects])
            and all(isinstance(value, list) for value in lists)
            and isinstance(self.versions, dict)
        )
        if not well_typed:
            raise TypeError


@dataclass
class Opened:
    """A decrypted artefact. `close` wipes it."""

    interface: Interface
    objects: list[bytes]
    weights: dict[str, np.ndarray]
    headers: list[Header]
    _buffer: SecretBuffer

    def close(self) -> None:
        self._buffer.close()


def seal_artefact(
    objects: Sequence[bytes], interface: Interface, weights: Mapping[str, np.ndarray], **session: Any
) -> list[bytes]:
    """Seal the three members, in the order of `MEMBERS`, in one session with these options of `Session`."""
    from . import tensors

    interface.objects = [len(code) for code in objects]
    size, pieces = tensors.pieces(weights)
    plain = [
        (sum(interface.objects), iter(objects)),
        (len(interface.to_json()), iter([interface.to_json()])),
        (size, pieces),
    ]
    sealing = Session(bundle=True, **session)
    sealed = []
    for content_type, (length, parts) in zip(MEMBERS.values(), plain, strict=True):
        output = io.BytesIO()
        sealing.seal_stream(parts, length, output, content_type=content_type)
        sealed.append(output.getvalue())
    return sealed


def save(artefact: Sequence[bytes], path: str | Path, names: Collection[str] = MEMBERS) -> None:
    """Write the sealed members as a tar, whole or not at all."""
    with atomic_writer(path) as file:
        for name, member in zip(names, artefact, strict=True):
            file.write(_tar_header(name, len(member)))
            file.write(member)
            file.write(bytes(-len(member) % _BLOCK))
        file.write(_END)


def load(path: str | Path, names: Collection[str] = MEMBERS) -> list[bytes]:
    """The members, still sealed, of a tar that `save` wrote with these names.

    Raises `NotSealedError` for another kind of file, `AuthenticationError` where the tar was altered.
    """
    with naming(path), open(path, "rb") as file:
        members = []
        for start, size in _places(file, names).values():
            file.seek(start)
            members.append(file.read(size))
        return members


def _tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT if size < 8 << 30 else tarfile.GNU_FORMAT)


def is_artefact(path: str | Path) -> bool:
    """Whether the file looks like a tar whose first member is an artefact's."""
    with open(path, "rb") as file:
        block = file.read(_BLOCK)
    return len(block) == _BLOCK and block[257:262] == b"ustar" and block.startswith(b"mod.o\0")


@contextlib.contextmanager
def _members(artefact: Artefact) -> Iterator[list[tuple[str, BinaryIO, int, int]]]:
    """Name, file, offset and size of each member, in the order of `MEMBERS`."""
    if isinstance(artefact, (list, tuple)):
        if len(artefact) != len(MEMBERS) or not all(isinstance(part, bytes) for part in artefact):
            raise NotSealedError(f"an artefact is a list of {len(MEMBERS)} sealed parts, from relay.build")
        yield [(name, io.BytesIO(part), 0, len(part)) for name, part in zip(MEMBERS, artefact, strict=True)]
        return
    if not isinstance(artefact, (str, os.PathLike)):
        raise NotSealedError(
            f"an artefact (from relay.build, or the path of its tar) is wanted, not {type(artefact).__name__}"
        )
    with naming(artefact), open(artefact, "rb") as file:
        yield [(name, file, *place) for name, place in _places(file).items()]


def _places(file: BinaryIO, names: Collection[str] = MEMBERS) -> dict[str, tuple[int, int]]:
    """Find the members without trusting the tar: exactly these names, plain files, inside the file, no more.

    A reader of general tars would follow links, sparse maps and headers of extensions; none of them can be
    part of what `save` writes, so a block that is not as `save` writes it is refused.
    """
    total = os.fstat(file.fileno()).st_size
    if total == 0:
        raise NotSealedError("it is empty")
    places, offset = {}, 0
    for name in names:
        file.seek(offset)
        block = file.read(_BLOCK)
        if block[257:262] != b"ustar" and not places:
            raise NotSealedError("it is not an artefact (a .tar written by 'tvmc compile')")
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise AuthenticationError(f"it was cut short or altered at its member {name}") from None
        if info.size <= 0 or block != _tar_header(name, info.size):
            raise AuthenticationError(f"its member {name} is missing or altered")
        start = offset + _BLOCK
        offset = start + info.size + -info.size % _BLOCK
        if offset + len(_END) > total:
            raise AuthenticationError("it was cut short")
        places[name] = (start, info.size)
        file.seek(start + info.size)
        if any(file.read(-info.size % _BLOCK)):
            raise AuthenticationError(f"bytes were hidden behind its member {name}")
    file.seek(offset)
    rest = file.read(len(_END) + 1)
    if rest != _END:
        raise AuthenticationError("it was extended or altered behind its last member")
    return places


def open_artefact(artefact: Artefact) -> Opened:
    """Verify and decrypt the members. Raises as `unseal` does, and where members do not belong together."""
    from . import tensors

    headers, buffers = [], {}
    try:
        with _members(artefact) as members:
            _check_bundle(members)
            with shared_unwrapping():
                for name, file, start, size in members:
                    file.seek(start)
                    with naming(name):
                        buffers[name], header = open_stream(file, size, content_type=MEMBERS[name])
                    headers.append(header)
        with buffers["mod.json"] as secret:
            interface = Interface.from_json(bytes(secret))
        with buffers["mod.o"] as secret:
            if sum(interface.objects) != len(secret):
                raise AuthenticationError("the artefact's code has another size than its interface says")
            objects, offset = [], 0
            for size in interface.objects:
                objects.append(bytes(secret.view[offset : offset + size]))
                offset += size
        return Opened(
            interface, objects, tensors.load(buffers["mod.params"].view), headers, buffers["mod.params"]
        )
    except BaseException:
        for buffer in buffers.values():
            buffer.close()
        raise


def _check_bundle(members: Iterable[tuple[str, BinaryIO, int, int]]) -> None:
    """Refuse members that were not sealed together. The headers' tags prove the ids they carry."""
    bundles = set()
    for header in _headers(members).values():
        bundles.add(header.core.get("bundle"))
    if len(bundles) != 1 or None in bundles:
        raise AuthenticationError("its members do not belong together: they come from different artefacts")


def _headers(members: Iterable[tuple[str, BinaryIO, int, int]]) -> dict[str, Header]:
    headers = {}
    for name, file, start, size in members:
        file.seek(start)
        with naming(name):
            headers[name] = read_header(file, size)
            headers[name].check_content_type((MEMBERS[name],))
    return headers


def inspect(artefact: Artefact) -> dict[str, Header]:
    """The members' headers, by name; needs no key and proves nothing."""
    with _members(artefact) as members:
        return _headers(members)


def rewrap(
    source: str | Path, destination: str | Path, recipients: Iterable[str | Path | Recipient] | None = None
) -> None:
    """Write the artefact `source` to `destination` for other recipients, payloads untouched."""
    from .context import current

    chosen = current().recipients() if recipients is None else load_recipients(recipients)
    stanzas: dict = {}
    with _members(source) as members, shared_unwrapping(), atomic_writer(destination) as output:
        _check_bundle(members)
        for name, file, start, size in members:
            file.seek(start)
            place = output.tell()
            output.write(bytes(_BLOCK))
            with naming(name):
                output.write(bytes(rewrapped(file, size, chosen, stanzas)))
                copy_rest(file, output, file.tell(), start + size)
            length = output.tell() - place - _BLOCK
            output.seek(place)
            output.write(_tar_header(name, length))
            output.seek(0, os.SEEK_END)
            output.write(bytes(-length % _BLOCK))
        output.write(_END)


def verify(artefact: Artefact) -> dict[str, Header]:
    """Check the signatures of all members and that they belong together, without any private key."""
    with _members(artefact) as members:
        _check_bundle(members)
        headers = {}
        for name, file, start, size in members:
            file.seek(start)
            with naming(name):
                headers[name] = verify_stream(file, size)
        return headers
