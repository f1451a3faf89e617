"""The sealed layout's header: what stands before the payload. docs/format.md specifies every byte."""

from __future__ import annotations

import hmac
import json
import re
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from . import policy as policies
from .errors import AuthenticationError, ContentTypeError, NotSealedError, PolicyError, SignatureError
from .signing import SIGNATURE_SIZE, Signer, Trust
from .suites import SUITES, Suite

__all__ = ["CONTENT_TYPES", "MAGIC", "Header", "read_header"]

MAGIC = b"\x89TVMS\r\n\x1a"
VERSION = 1
_FIXED = struct.Struct("<8sIIII")
BLOCK = 4096
"""Headers end at a multiple of this: file systems then share payloads between files, and a short header is
one page, which a single write replaces whole."""
_DIGEST_SIZE = TAG_SIZE = 32
_SIGNATURE_SECTION = _DIGEST_SIZE + SIGNATURE_SIZE
_CORE_LIMIT = 1 << 16
_RECIPIENTS_LIMIT = 1 << 25  # over ten thousand recipients

CONTENT_TYPES = frozenset(
    {f"model/{kind}" for kind in ("onnx", "pytorch", "tensorflow", "tflite", "keras", "mxnet")}
    | {"input-shapes", "ir-module", "params", "inputs", "outputs"}
    | {"artefact/object", "artefact/interface", "artefact/params"}
)

_CORE_FIELDS: dict[str, tuple[type, re.Pattern | None]] = {
    "content": (str, None),
    "salt": (str, re.compile(r"[0-9a-f]{64}")),
    "size": (int, None),
    "suite": (str, None),
    "bundle": (str, re.compile(r"[0-9a-f]{32}")),
    "signer": (str, re.compile(r"[0-9a-f]{32}")),
    "policy": (dict, None),
}
_REQUIRED = {"content", "salt", "size", "suite"}


@dataclass
class Header:
    """A parsed or a new header. Nothing in it is to be believed before `authenticate` has passed."""

    core: dict[str, Any]
    recipients: list[dict[str, str]]
    core_bytes: bytes = b""
    recipients_bytes: bytes = b""
    signature: bytes = field(default=b"", repr=False)
    """Empty, or SHA-256 of the payload (32) followed by the Ed25519 signature (64)."""
    tag: bytes = field(default=bytes(TAG_SIZE), repr=False)

    def __post_init__(self) -> None:
        self.core_bytes = self.core_bytes or _canonical(self.core)
        self.recipients_bytes = self.recipients_bytes or self._padded(_canonical(self.recipients))

    def _padded(self, recipients: bytes) -> bytes:
        """Fill up with blanks, so that the payload starts at a whole block (JSON ignores them)."""
        signature_size = _SIGNATURE_SECTION if self.signer else 0
        size = _FIXED.size + len(self.core_bytes) + len(recipients) + signature_size + TAG_SIZE
        return recipients + b" " * (-size % BLOCK)

    @property
    def content_type(self) -> str:
        return self.core["content"]

    @property
    def suite(self) -> Suite:
        return SUITES[self.core["suite"]]

    @property
    def signer(self) -> str | None:
        return self.core.get("signer")

    @property
    def policy(self) -> dict[str, str]:
        return self.core.get("policy", {})

    @property
    def payload_size(self) -> int:
        return self.suite.payload_size(self.core["size"])

    def replace_recipients(self, recipients: list[dict[str, str]]) -> Header:
        """The same core and signature for other recipients; the caller authenticates it anew."""
        return Header(self.core, recipients, self.core_bytes, b"", self.signature)

    # --- keys and bytes

    def header_key(self, session_key: bytes) -> bytes:
        return self._derive(session_key, b"tvm-secret/v1/header")

    def payload_key(self, session_key: bytes) -> bytes:
        return self._derive(session_key, b"tvm-secret/v1/payload")

    def _derive(self, session_key: bytes, info: bytes) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        return HKDF(SHA256(), 32, bytes.fromhex(self.core["salt"]), info).derive(session_key)

    def _fixed(self) -> bytes:
        sections = (self.core_bytes, self.recipients_bytes, self.signature)
        return _FIXED.pack(MAGIC, VERSION, *map(len, sections)) + b"".join(sections)

    def authenticate(self, session_key: bytes) -> None:
        """Set the header tag."""
        self.tag = hmac.digest(self.header_key(session_key), self._fixed(), "sha256")

    def check_tag(self, session_key: bytes) -> None:
        """Raise `AuthenticationError` unless the header is as its sealer left it."""
        expected = hmac.digest(self.header_key(session_key), self._fixed(), "sha256")
        if not hmac.compare_digest(expected, self.tag):
            raise AuthenticationError("the header was altered after sealing")

    def __bytes__(self) -> bytes:
        return self._fixed() + self.tag

    # --- signature

    def _signed_message(self, digest: bytes) -> bytes:
        return (
            b"tvm-secret/v1/signature\0" + struct.pack("<I", len(self.core_bytes)) + self.core_bytes + digest
        )

    def sign(self, signer: Signer, payload_digest: bytes) -> None:
        self.signature = payload_digest + signer.sign(self._signed_message(payload_digest))

    def check_signature(self, trust: Trust) -> None:
        """Raise `SignatureError` unless core and digest are signed as `trust` requires."""
        verifier = trust.verifier(self.signer)
        if verifier is not None:
            digest, signature = self.signature[:_DIGEST_SIZE], self.signature[_DIGEST_SIZE:]
            verifier.verify(signature, self._signed_message(digest))

    def check_digest(self, digest: bytes) -> None:
        """Raise `AuthenticationError` when the payload is not the signed one."""
        if digest != self.signature[:_DIGEST_SIZE]:
            raise AuthenticationError("the payload is not the one that was signed")

    # --- conditions

    def check_content_type(self, wanted: tuple[str, ...]) -> None:
        if self.content_type not in wanted:
            raise ContentTypeError(f"it holds {self.content_type}, where {' or '.join(wanted)} is wanted")

    def check_policy(self) -> None:
        policies.check(self.policy)


def read_header(file: BinaryIO, total: int) -> Header:
    """Parse a header from `file`, which holds `total` bytes from here on, and leave it at the payload.

    Raises `NotSealedError` when it does not start as a sealed file, `AuthenticationError` when it is cut
    short or malformed. No length is believed before it is compared with what is there.
    """
    fixed = file.read(_FIXED.size)
    if fixed[: len(MAGIC)] != MAGIC[: len(fixed)] or len(fixed) < len(MAGIC):
        raise NotSealedError("not a sealed file")
    if len(fixed) < _FIXED.size:
        raise _malformed("it is cut short")
    _, version, core_size, recipients_size, signature_size = _FIXED.unpack(fixed)
    if version != VERSION:
        raise NotSealedError(f"sealed with format version {version}; this program reads version {VERSION}")
    if (
        core_size > _CORE_LIMIT
        or recipients_size > _RECIPIENTS_LIMIT
        or signature_size not in (0, _SIGNATURE_SECTION)
    ):
        raise _malformed("a length is out of range")
    header_size = _FIXED.size + core_size + recipients_size + signature_size + TAG_SIZE
    if header_size > total:
        raise _malformed("it is cut short")
    core_bytes, recipients_bytes, signature, tag = map(
        file.read, (core_size, recipients_size, signature_size, TAG_SIZE)
    )
    core = _parse_core(core_bytes)
    header = Header(core, _parse_recipients(recipients_bytes), core_bytes, recipients_bytes, signature, tag)
    if header.signer and not signature:
        raise SignatureError("its signature was removed")
    if signature and not header.signer:
        raise SignatureError("it carries a signature and names no signer")
    excess = total - header_size - header.payload_size
    if excess:
        raise AuthenticationError("bytes were appended to it" if excess > 0 else "it was cut short")
    return header


def _malformed(why: str) -> AuthenticationError:
    return AuthenticationError(f"the header is damaged: {why}")


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def parse_json(data: bytes, what: str) -> Any:
    """Strict JSON (RFC 8259): UTF-8, no duplicate names, no NaN; raises `AuthenticationError`."""

    def no_duplicates(pairs):
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError
        return value

    def no_constants(_):
        raise ValueError

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=no_duplicates, parse_constant=no_constants)
    except (ValueError, RecursionError):
        raise _malformed(f"its {what} is not valid JSON") from None


def _parse_core(data: bytes) -> dict[str, Any]:
    core = parse_json(data, "core")
    if not isinstance(core, dict) or not core.keys() >= _REQUIRED:
        raise _malformed("its core lacks a field")
    for name, value in core.items():
        kind, pattern = _CORE_FIELDS.get(name, (None, None))
        if kind is None or type(value) is not kind or (pattern and not pattern.fullmatch(value)):
            raise _malformed("its core has a field that this version does not know")
    if core["suite"] not in SUITES or core["content"] not in CONTENT_TYPES or core["size"] < 0:
        raise _malformed("its core has a value that this version does not know")
    if "policy" in core:
        try:
            policies.check_form(core["policy"])
        except PolicyError:
            raise _malformed("its policy has a field that this version does not know") from None
    return core


_PLAIN_JSON = re.compile(rb"[ !-\[\]-~]*")  # printable ASCII without the backslash


def _parse_recipients(data: bytes) -> list[dict[str, str]]:
    # Key ids, hashes and base64 need no escapes; refused, none can send control characters to a terminal.
    if not _PLAIN_JSON.fullmatch(data):
        raise _malformed("its list of recipients holds characters that none has")
    stanzas = parse_json(data, "list of recipients")
    # Written for the file that has a thousand of them.
    well_formed = isinstance(stanzas, list) and all(
        type(stanza) is dict
        and "type" in stanza
        and "key" in stanza
        and {*map(type, stanza.values())} == {str}
        for stanza in stanzas
    )
    if not well_formed or not stanzas:
        raise _malformed("its list of recipients is not one")
    return stanzas
