"""Every version's known answers, one subtest each: old files stay readable, broken ones stay refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import tvm_secret as secret
from tvm_secret import artefact, context, envelope, errors
from tvm_secret.recipients.rsa import RsaIdentity

FILES = sorted((Path(__file__).parent.parent / "vectors").glob("v*.json"))
VECTORS = [json.loads(path.read_text()) for path in FILES]


def cases(kind: str):
    return [
        pytest.param(vectors, case, id=f"v{vectors['version']}: {case['name']}")
        for vectors in VECTORS
        for case in vectors[kind]
    ]


def test_there_are_vectors_of_every_version():
    assert [vectors["version"] for vectors in VECTORS] == [1]


@pytest.fixture
def in_force(tmp_path):
    def use(vectors, case):
        signer = tmp_path / "signer.pem"
        signer.write_text(vectors["signer"])
        identity = RsaIdentity(load_pem_private_key(vectors["private_key"].encode(), None))
        return context.use(identity=identity, signers=[signer] if case.get("signed") else ())

    return use


@pytest.mark.parametrize(("vectors", "case"), cases("good"))
def test_good_files_open(in_force, vectors, case):
    sealed = base64.b64decode(case["sealed"])
    with in_force(vectors, case) as keys:
        with secret.unseal(sealed, content_type=case["content_type"]) as plain:
            assert bytes(plain) == base64.b64decode(case["plaintext"])
        if "session_key" in case:
            header = secret.inspect(sealed)
            session_key = envelope._session_key(header, keys.identity())
            assert session_key.hex() == case["session_key"]
            assert header.header_key(session_key).hex() == case["header_key"]
            assert header.payload_key(session_key).hex() == case["payload_key"]


@pytest.mark.parametrize(("vectors", "case"), cases("broken"))
def test_broken_files_give_their_error(in_force, vectors, case):
    with in_force(vectors, case), pytest.raises(errors.SecretError) as caught:
        secret.unseal(base64.b64decode(case["sealed"]), content_type=case["content_type"])
    assert type(caught.value).__name__ == case["error"], caught.value


@pytest.mark.parametrize("vectors", VECTORS, ids=lambda vectors: f"v{vectors['version']}")
def test_artefacts_open(in_force, vectors, tmp_path):
    (tmp_path / "x.tar").write_bytes(base64.b64decode(vectors["artefact"]))
    with in_force(vectors, {}):
        opened = artefact.open_artefact(tmp_path / "x.tar")
    assert opened.objects == [b"object code"]
    opened.close()
