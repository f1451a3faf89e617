"""Write the known-answer vectors of docs/format.md. They are frozen: a new format version adds files.

    python tests/vectors/generate.py tests/vectors/v1.json

Sealing is randomised, so a second run gives other bytes of equal worth. Good files carry what a second
implementation can check on its way (session key, derived keys); broken ones carry the error that opening
must give, by its class name in `tvm_secret.errors`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import tvm_secret as secret
from tvm_secret import artefact, context, envelope, header, keyfiles, policy
from tvm_secret.recipients.rsa import RsaIdentity, RsaRecipient


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def pem(key) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(key) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def main(destination: Path) -> None:
    keys = {"recipient": keyfiles.generate_rsa(2048), "other": keyfiles.generate_rsa(2048)}
    signers = {"signer": keyfiles.generate_signing(), "stranger": keyfiles.generate_signing()}
    identity, other = (RsaIdentity(key) for key in keys.values())
    folder = Path(tempfile.mkdtemp())
    paths = {}
    for name, key in signers.items():
        paths[name] = folder / name
        paths[name].write_text(pem(key))
        (folder / f"{name}.pem").write_text(public_pem(key))

    good, broken = [], []

    def add(name, sealed, plain, content_type, **more):
        entry = {"name": name, "content_type": content_type, "sealed": text(sealed), "plaintext": text(plain)}
        if sealed.startswith(header.MAGIC):
            found = secret.inspect(sealed)
            session_key = envelope._session_key(found, identity)
            entry["session_key"] = session_key.hex()
            entry["header_key"] = found.header_key(session_key).hex()
            entry["payload_key"] = found.payload_key(session_key).hex()
        good.append(entry | more)

    def refuse(name, sealed, error, content_type="params", **more):
        broken.append(
            {"name": name, "content_type": content_type, "sealed": text(sealed), "error": error} | more
        )

    def seal(plain=b"a plaintext", content_type="params", sign_key=None, **options):
        with context.use(recipients=[identity.recipient()], sign_key=sign_key):
            return secret.seal(plain, content_type=content_type, **options)

    with context.use(identity=identity, recipients=[identity.recipient()]):
        for suite in ("aes-eax", "cobblestone-256"):
            for length in (0, 1, 100, 16384, 20000):
                plain = (hashlib.sha256(b"vector").digest() * (length // 32 + 1))[:length]
                add(f"{suite}, {length} bytes", seal(plain, suite=suite), plain, "params")
        add("raw layout", seal(b"raw", layout="raw"), b"raw", "params")
        add(
            "two recipients, the second by SHA-1",
            seal(
                b"two", recipients=[other.recipient(), RsaRecipient(identity.recipient().public_key, "sha1")]
            ),
            b"two",
            "params",
        )
        signed = seal(b"signed", sign_key=paths["signer"])
        add("signed", signed, b"signed", "params", signed=True)
        limits = policy.make(not_before=policy._moment("2020-01-01T00:00:00Z"))
        add("policy", seal(b"policy", policy=limits), b"policy", "params")

        sealed = seal()
        found = secret.inspect(sealed)
        start = len(sealed) - found.payload_size
        refuse("empty", b"", "NotSealedError")
        refuse("plain", b"a plain model, and nothing sealed about it" * 20, "NotSealedError")
        refuse("version 2", sealed[:8] + b"\2" + sealed[9:], "NotSealedError")
        refuse("cut inside the header", sealed[:100], "AuthenticationError")
        refuse("cut by a byte", sealed[:-1], "AuthenticationError")
        refuse("a byte appended", sealed + b"\0", "AuthenticationError")
        refuse("last byte flipped", sealed[:-1] + bytes([sealed[-1] ^ 1]), "AuthenticationError")
        refuse("header tag flipped", _flip(sealed, start - 1), "AuthenticationError")
        refuse("core edited", sealed.replace(b'"params"', b'"inputs"'), "AuthenticationError", "inputs")
        refuse("another content type", sealed, "ContentTypeError", "ir-module")
        refuse("another recipient", seal(recipients=[other.recipient()]), "IdentityError")
        refuse("unknown field", _with_core(found, sealed, surprise=1), "AuthenticationError")
        refuse("unknown suite", _with_core(found, sealed, suite="aes-ecb"), "AuthenticationError")
        refuse("duplicate field", _duplicate(found, sealed), "AuthenticationError")
        refuse("size too large", _with_core(found, sealed, size=2**60), "AuthenticationError")
        refuse(
            "chunk dropped", _drop_chunk(seal(bytes(40000), suite="cobblestone-256")), "AuthenticationError"
        )
        expired = policy.make(not_after=policy._moment("2020-01-01T00:00:00Z"))
        refuse("expired", seal(policy=expired), "PolicyError")
        refuse("unsigned where a signature is wanted", sealed, "SignatureError", signed=True)
        refuse("raw where a signature is wanted", seal(layout="raw"), "SignatureError", signed=True)
        refuse("by a stranger", seal(sign_key=paths["stranger"]), "SignatureError", signed=True)
        moved = secret.inspect(seal(sign_key=paths["signer"])).signature
        here = secret.inspect(signed)
        refuse(
            "signature of another file", _with(here, signed, signature=moved), "SignatureError", signed=True
        )
        refuse("signature removed", _with(here, signed, signature=b""), "SignatureError", signed=True)

        interface = artefact.Interface(inputs=[], outputs=[], objects=[])
        members = artefact.seal_artefact([b"object code"], interface, {})
        artefact.save(members, folder / "x.tar")

    destination.write_text(
        json.dumps(
            {
                "version": 1,
                "private_key": pem(keys["recipient"]),
                "other_private_key": pem(keys["other"]),
                "signer": public_pem(signers["signer"]),
                "good": good,
                "broken": broken,
                "artefact": text((folder / "x.tar").read_bytes()),
            },
            indent=1,
        )
        + "\n"
    )


def _flip(sealed: bytes, place: int) -> bytes:
    return sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]


def _with(found: header.Header, sealed: bytes, **changes) -> bytes:
    parts = {
        "core": found.core,
        "recipients": found.recipients,
        "signature": found.signature,
        "tag": found.tag,
    }
    return bytes(header.Header(**parts | changes)) + sealed[-found.payload_size :]


def _with_core(found: header.Header, sealed: bytes, **fields) -> bytes:
    return _with(found, sealed, core=found.core | fields)


def _duplicate(found: header.Header, sealed: bytes) -> bytes:
    return _with(found, sealed, core_bytes=found.core_bytes[:-1] + b',"size":1}')


def _drop_chunk(sealed: bytes) -> bytes:
    start = len(sealed) - secret.inspect(sealed).payload_size + 56
    return sealed[:start] + sealed[start + 16400 :]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
