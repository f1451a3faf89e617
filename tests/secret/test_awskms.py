"""Keys in AWS KMS: boto3 against a local moto server, over HTTP."""

from __future__ import annotations

import base64
import http.server
import json
import logging
import os
import socket
import sys
import threading

import pytest
from Crypto.PublicKey import RSA

import kms_server
import tvm_secret as secret
from conftest import PASSPHRASE
from tvm_secret import context, errors, keyfiles
from tvm_secret.recipients import load_identity, load_recipients
from tvm_secret.recipients.rsa import RsaRecipient

boto3 = pytest.importorskip("boto3", reason="boto3 is not here (the extra [aws])")
pytest.importorskip("moto.server", reason="moto's server is not here (the extra [test])")

SESSION_KEY = bytes(range(32))


@pytest.fixture(scope="module", autouse=True)
def _environment(tmp_path_factory):
    """An AWS environment that knows nothing but made-up credentials."""
    nowhere = tmp_path_factory.mktemp("aws") / "missing"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing's secret")
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))
        patch.setenv("AWS_CONFIG_FILE", str(nowhere))
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def server():
    with kms_server.running() as address:
        yield address


@pytest.fixture(scope="module")
def service(_environment, server):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_KMS", server)
        yield boto3.session.Session().client("kms")


@pytest.fixture(scope="module")
def key(service) -> str:
    """The ARN of an RSA key whose alias is `alias/model`."""
    made = service.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]
    service.create_alias(AliasName="alias/model", TargetKeyId=made["KeyId"])
    return made["Arn"]


@pytest.fixture(scope="module")
def identity(key):
    return load_identity("awskms:alias/model")


# ------------------------------------------------------------------------------------------------- it works


def test_public_key_file(identity, service, key, tmp_path):
    path = keyfiles.write_public(identity.recipient(), tmp_path)
    der = service.get_public_key(KeyId=key)["PublicKey"]
    assert RSA.import_key(path.read_text()) == RSA.import_key(der)
    (recipient,) = load_recipients([path])
    assert recipient.key_id == identity.key_id
    assert recipient.hash_name == "sha256"


@pytest.mark.parametrize("suite", ["aes-eax", "cobblestone-256"])
def test_seal_and_open_by_every_name(identity, key, alice, tmp_path, suite):
    path = keyfiles.write_public(identity.recipient(), tmp_path)
    sealed = secret.seal(b"weights", content_type="params", recipients=[alice.public, path], suite=suite)
    for name in (
        "alias/model",
        key,
        key.rpartition("/")[2],
        key.replace("key/", "alias/").rpartition("/")[0] + "/model",
    ):
        with context.use(identity=f"awskms:{name}"):
            assert bytes(secret.unseal(sealed, content_type="params")) == b"weights"


def test_an_arn_names_its_region(key, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert load_identity(f"awskms:{key}").wrapped_size == 256
    with pytest.raises(errors.IdentityError, match="no region"):
        load_identity("awskms:alias/model")


def test_both_hashes(identity):
    for hash_name in ("sha256", "sha1"):
        wrapped = RsaRecipient(identity.recipient().public_key, hash_name).wrap_raw(SESSION_KEY)
        assert identity.unwrap_raw(wrapped, hash_name) == SESSION_KEY


def test_raw_layout(identity):
    raw = secret.seal(b"a model", content_type="model/onnx", recipients=[identity.recipient()], layout="raw")
    with context.use(identity=identity):
        assert bytes(secret.unseal(raw, content_type="model/onnx")) == b"a model"


def test_an_alias_that_moves_on_leaves_an_identity_as_it_is(key, service):
    service.create_alias(AliasName="alias/current", TargetKeyId=key)
    identity = load_identity("awskms:alias/current")
    stanza = identity.recipient().wrap(SESSION_KEY)
    other = service.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["KeyId"]
    service.update_alias(AliasName="alias/current", TargetKeyId=other)
    assert identity.unwrap(stanza) == SESSION_KEY
    assert load_identity("awskms:alias/current").key_id != identity.key_id


def test_command_line(tvmc, key, alice):
    (tvmc.folder / "m.onnx").write_bytes(b"a model")
    tvmc("keygen", "--from", "awskms:alias/model", "--out-dir", "kms")
    tvmc("encrypt", "m.onnx", "-o", "m.sealed", "-r", "kms")
    tvmc("rewrap", "m.sealed", "-o", "m.alice", "--identity", "awskms:alias/model", "-r", alice.public)
    with context.use(identity=alice.private, passphrase=PASSPHRASE):
        assert bytes(secret.unseal(tvmc.folder / "m.alice", content_type="model/onnx")) == b"a model"
    tvmc.refuses("keygen", "--from", "awskms:alias/none", "--out-dir", "x", match="there is no such key")


# ------------------------------------------------------------------------------------------------- refusals


def flipped(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stanza: stanza | {"wrapped": flipped(stanza["wrapped"])},
        lambda stanza: stanza | {"wrapped": base64.b64encode(bytes(255)).decode()},
        lambda stanza: stanza | {"wrapped": ""},
        lambda stanza: stanza | {"hash": "sha1"},
        lambda stanza: stanza | {"hash": "md5"},
        lambda stanza: stanza | {"type": "kms"},
    ],
)
def test_altered_stanzas_are_refused(identity, spoil):
    with pytest.raises(errors.AuthenticationError):
        identity.unwrap(spoil(identity.recipient().wrap(SESSION_KEY)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is followed by a key id"),
        ("alias/missing", "there is no such key"),
        ("12345678-1234-1234-1234-123456789012", "there is no such key"),
    ],
)
def test_keys_that_are_not_there(service, name, message):
    with pytest.raises(errors.IdentityError, match=message):
        load_identity(f"awskms:{name}")


@pytest.mark.parametrize(
    "spec",
    [
        {"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"},
        {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"},
        {"KeySpec": "SYMMETRIC_DEFAULT"},
    ],
)
def test_keys_of_other_kinds(service, spec):
    made = service.create_key(**spec)["KeyMetadata"]["KeyId"]
    with pytest.raises(errors.IdentityError, match="is not an RSA key for encryption and decryption"):
        load_identity(f"awskms:{made}")


def test_no_credentials(service, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(errors.IdentityError, match="no AWS credentials: set AWS_ACCESS_KEY_ID"):
        load_identity("awskms:alias/model")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(errors.IdentityError, match="no AWS credentials: set AWS_ACCESS_KEY_ID"):
        load_identity("awskms:alias/model")


def test_no_network(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(errors.IdentityError, match="the service cannot be reached"):
            load_identity("awskms:alias/model")


@pytest.fixture
def refusing(monkeypatch):
    """A service whose every answer is an error with this code, and a text that nobody is to see."""

    class Handler(http.server.BaseHTTPRequestHandler):
        code = ""

        def do_POST(self):
            body = json.dumps({"__type": self.code, "message": "X-Amz-Security-Token:hunter2"}).encode()
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{httpd.server_port}")
        yield Handler
        httpd.shutdown()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", "may not use it .*kms:GetPublicKey and kms:Decrypt are needed"),
        ("DisabledException", "the key is disabled"),
        ("KMSInvalidStateException", "being deleted"),
        ("UnsupportedOperationException", "not an asymmetric one"),
        ("UnrecognizedClientException", "does not know these credentials"),
        ("InvalidSignatureException", "does not accept these credentials"),
        ("ExpiredTokenException", "the credentials have expired"),
        ("SomethingNewException", "it answers SomethingNewException"),
    ],
)
def test_each_refusal_is_one_line_without_the_service_s_text(refusing, code, message):
    refusing.code = code
    with pytest.raises(errors.IdentityError, match=message) as caught:
        load_identity("awskms:alias/model")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'tvm-secret\[aws\]'"):
        load_identity("awskms:alias/model")


def test_session_keys_are_kept_out_of_the_log(identity, service, key, caplog):
    caplog.set_level(logging.DEBUG)
    wrapped = identity.recipient().wrap_raw(SESSION_KEY)
    shown = base64.b64encode(SESSION_KEY).decode()
    assert identity.unwrap_raw(wrapped, "sha256") == SESSION_KEY
    assert "botocore" in caplog.text
    assert shown not in caplog.text
    assert repr(SESSION_KEY) not in caplog.text
    # What would be there otherwise.
    service.decrypt(KeyId=key, CiphertextBlob=wrapped, EncryptionAlgorithm="RSAES_OAEP_SHA_256")
    assert shown in caplog.text
