"""Keys in a PKCS#11 token: SoftHSM 2 (Debian's `softhsm2`), which does OAEP with SHA-1 only."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.PublicKey import RSA

import small_model
import tvm_secret as secret
from conftest import PASSPHRASE
from tvm_secret import context, errors, keyfiles
from tvm_secret.recipients import load_identity, load_recipients
from tvm_secret.recipients import pkcs11 as tokens
from tvm_secret.recipients.rsa import RsaRecipient

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
)
MODULE = next((path for path in MODULES if Path(path).exists()), None)
PIN = "a token's PIN"
SESSION_KEY = bytes(range(32))
TWO_KEYS = (b"\x02", b"\x03")

pytestmark = pytest.mark.skipif(
    MODULE is None or which("softhsm2-util") is None, reason="SoftHSM is not here (Debian: softhsm2)"
)
pkcs11 = pytest.importorskip("pkcs11", reason="python-pkcs11 is not here (the extra [pkcs11])")


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    """Two tokens in a folder of their own; `SOFTHSM2_CONF` names it for this process and its children."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        for label in ("the device", "spare"):
            subprocess.run(
                ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", PIN],
                check=True,
                capture_output=True,
            )
        yield folder / "softhsm2.conf"
        tokens._sessions.clear()
        pkcs11.unload(MODULE)


@pytest.fixture(scope="module")
def token(configuration):
    """The first of them, holding keys."""
    from pkcs11 import Attribute, KeyType

    device = pkcs11.lib(MODULE).get_token(token_label="the device")
    with device.open(rw=True, user_pin=PIN) as session:
        session.generate_keypair(KeyType.RSA, 2048, id=b"\x01", label="the model", store=True)
        for key_id in TWO_KEYS:
            session.generate_keypair(KeyType.RSA, 2048, id=key_id, label="twins", store=True)
        session.generate_keypair(KeyType.RSA, 1024, id=b"\x04", label="short", store=True)
        session.generate_keypair(
            KeyType.RSA,
            2048,
            id=b"\x05",
            label="signs only",
            store=True,
            private_template={Attribute.DECRYPT: False},
        )
    return device


def uri(path: str = "token=the%20device;object=the%20model", **query: str) -> str:
    query = {"module-path": MODULE} | {name.replace("_", "-"): value for name, value in query.items()}
    return f"pkcs11:{path}?" + "&".join(f"{name}={value}" for name, value in query.items())


def pin(key: str) -> bytes:
    return PIN.encode()


@pytest.fixture
def logged_out(token):
    """No session of this process knows the PIN any more."""
    for session in tokens._sessions.values():
        session.close()
    tokens._sessions.clear()
    return token


@pytest.fixture
def identity(token):
    return load_identity(uri(), pin)


@pytest.fixture
def public(identity, tmp_path) -> Path:
    return keyfiles.write_public(identity.recipient(), tmp_path)


# ------------------------------------------------------------------------------------------------- it works


def test_public_key_file_names_the_hash(identity, public):
    """What other libraries read, with the line that ours goes by; the key id is the key's own."""
    assert public.name == "rsa_public_key.pem"
    assert public.read_text().startswith("oaep-hash: sha1\n-----BEGIN PUBLIC KEY-----\n")
    key = RSA.import_key(public.read_text().partition("\n")[2])
    assert key.size_in_bits() == 2048
    (recipient,) = load_recipients([public])
    assert recipient.hash_name == "sha1"
    assert recipient.key_id == identity.key_id == RsaRecipient(recipient.public_key).key_id
    assert recipient.to_pem() == public.read_bytes()


@pytest.mark.parametrize("suite", ["aes-eax", "cobblestone-256"])
def test_seal_and_open(public, identity, alice, suite):
    sealed = secret.seal(b"weights", content_type="params", recipients=[alice.public, public], suite=suite)
    assert [stanza["hash"] for stanza in secret.inspect(sealed).recipients] == ["sha256", "sha1"]
    with context.use(identity=identity):
        assert bytes(secret.unseal(sealed, content_type="params")) == b"weights"
    with context.use(identity=uri(), passphrase=PIN):
        assert bytes(secret.unseal(sealed, content_type="params")) == b"weights"


def test_what_this_process_makes_it_opens_again(identity):
    with context.use(identity=identity):
        sealed = secret.envelope.Session.to_self().seal(b"module", content_type="ir-module")
        assert bytes(secret.unseal(sealed, content_type="ir-module")) == b"module"


def test_raw_layout(public, identity):
    raw = secret.seal(b"a model", content_type="model/onnx", recipients=[public], layout="raw")
    with context.use(identity=identity):
        assert bytes(secret.unseal(raw, content_type="model/onnx")) == b"a model"
        with pytest.raises(errors.NotSealedError):
            secret.unseal(bytes([raw[0] ^ 1]) + raw[1:], content_type="model/onnx")


def test_opens_what_pycryptodome_wrapped(public, identity):
    key = RSA.import_key(public.read_text().partition("\n")[2])
    assert identity.unwrap_raw(PKCS1_OAEP.new(key).encrypt(SESSION_KEY), "sha1") == SESSION_KEY


def test_several_threads_at_once(identity):
    stanza = identity.recipient().wrap(SESSION_KEY)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: identity.unwrap(stanza), range(40))) == {SESSION_KEY}


def test_command_line(tvmc, token, alice):
    """The owner seals to a compiler host, that one to the device, whose key is in its token."""
    (tvmc.folder / "m.onnx").write_bytes(small_model.onnx_bytes())
    np.savez(tvmc.folder / "in.npz", data=small_model.image())
    (tvmc.folder / "pin").write_text(f"{PIN}\n")
    key, other = uri(), uri("token=the%20device;id=%02")
    done = tvmc("keygen", "--from", key, "--passphrase-file", "pin", "--out-dir", "device")
    assert done.stdout.split() == ["public", "key:", "device/rsa_public_key.pem"]
    tvmc.refuses("keygen", "--from", key, "--passphrase-file", "pin", "--out-dir", "device", match="exists")
    tvmc("encrypt", "m.onnx", "-o", "m.sealed", "-r", alice.public, "-r", "device")
    tvmc("compile", "-r", "device", "-o", "m.tar", "m.sealed")
    run = ("run", "-i", "in.npz", "-o", "out.npz", "m.tar")
    tvmc(*run, "--identity", key, "--passphrase-file", "pin")
    with np.load(tvmc.folder / "out.npz") as outputs:
        wanted = small_model.reference(small_model.onnx_bytes(), small_model.image())
        np.testing.assert_allclose(outputs["output_0"], wanted, rtol=0, atol=1e-4)
    tvmc.refuses(*run, "--identity", key, match="wrong PIN")
    tvmc.refuses(*run, "--identity", other, "--passphrase-file", "pin", match="not among its recipients")
    tvmc.refuses(*run, match="not among its recipients")
    by_variable = {"TVM_SECRET_IDENTITY": "pkcs11:token=the%20device;id=%01", "PKCS11_MODULE_PATH": MODULE}
    tvmc(*run, env=by_variable | {"TVM_SECRET_PASSPHRASE": PIN})


def test_module_by_name(token, tmp_path):
    """The dynamic linker finds it, which reads its search path when a process starts."""
    (tmp_path / "pin").write_text(PIN)
    key = f"pkcs11:token=the%20device;id=%01?module-name=softhsm2&pin-source=file:{tmp_path / 'pin'}"
    done = subprocess.run(
        [sys.executable, "-m", "tvm_secret.cli", "keygen", "--from", key],
        cwd=tmp_path,
        env=os.environ | {"LD_LIBRARY_PATH": os.path.dirname(MODULE)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "rsa_public_key.pem").exists()


# ----------------------------------------------------------------------------------------- which token, key


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("token=the%20device;id=%01", 1),
        ("object=the%20model", 1),
        ("token=the%20device;object=the%20model;type=private;manufacturer=SoftHSM%20project", 1),
        ("token=the%20device;object=twins;id=%03", 1),
        ("token=the%20device;object=twins", "2 private keys fit"),
        ("token=the%20device", "3|4 private keys fit"),
        ("token=the%20device;object=missing", "no RSA private key that decrypts fits"),
        ("token=the%20device;object=signs%20only", "no RSA private key that decrypts fits"),
        ("token=the%20device;object=short", "1024 bits is too short"),
        ("token=spare;object=the%20model", "no RSA private key that decrypts fits"),
        ("token=nobody;object=the%20model", "no token fits"),
        ("token=the%20device;slot-id=12345;object=the%20model", "no token fits"),
        ("model=SoftHSM%20v2;object=the%20model", "2 tokens fit"),
    ],
)
def test_the_uri_singles_out_one_token_and_one_key(token, path, count):
    if path.startswith("object"):
        path = f"serial={token.serial.decode()};slot-id={token.slot.slot_id};{path}"
    if count == 1:
        assert load_identity(uri(path), pin).wrapped_size == 256
        return
    with pytest.raises(errors.IdentityError, match=count):
        load_identity(uri(path), pin)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("pkcs11:token", "a PKCS#11 URI is"),
        ("pkcs11:token=a;token=b", "no attribute twice"),
        ("pkcs11:flavour=a", "'flavour' is unknown"),
        ("pkcs11:type=public", "'type'"),
        ("pkcs11:slot-id=one", "'slot-id'"),
        ("pkcs11:token=a?colour=red", "'colour' is unknown"),
        ("pkcs11:token=a?pin-value=hunter2", "pin-value would show the PIN"),
        ("pkcs11:token=a?pin-source=|cat%20pin", "not the absolute path of a file"),
        ("pkcs11:token=a?pin-source=pin", "not the absolute path of a file"),
        ("pkcs11:token=a?module-path=libsofthsm2.so", "not an absolute path"),
        ("pkcs11:token=a?module-path=/missing.so", "/missing.so cannot be loaded"),
        ("pkcs11:token=a?module-name=../evil", "module-name is not a name"),
        ("pkcs11:token=a?module-name=missing", "libmissing.so or missing.so cannot be loaded"),
    ],
)
def test_uris_that_are_refused(broken, message):
    with pytest.raises(errors.IdentityError, match=message) as caught:
        load_identity(broken, pin)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(errors.MissingExtraError, match=r"pip install 'tvm-secret\[pkcs11\]'"):
        load_identity(uri(), pin)


# ------------------------------------------------------------------------------------------------------ PIN


def test_wrong_pins(logged_out):
    for wrong in (b"another PIN", b"", b"\xff\xfe"):
        with pytest.raises(errors.PassphraseError) as caught:
            load_identity(uri(), lambda key, wrong=wrong: wrong)
        assert "another" not in str(caught.value)
    with pytest.raises(errors.PassphraseError, match="its PIN is needed"):
        load_identity(uri())
    assert load_identity(uri(), pin)


def test_pin_from_a_file(logged_out, tmp_path):
    (tmp_path / "pin").write_text(f"{PIN}\nsomething else\n")
    (tmp_path / "empty").write_text("")
    with pytest.raises(errors.PassphraseError, match="is empty"):
        load_identity(uri(pin_source=f"file:{tmp_path}/empty"), pin)
    with pytest.raises(errors.PassphraseError, match="cannot read the PIN"):
        load_identity(uri(pin_source=f"{tmp_path}/missing"), pin)
    assert load_identity(uri(pin_source=f"{tmp_path}/pin"))


def test_the_prompt_names_the_key_without_its_query(logged_out):
    asked = []
    load_identity(uri(), lambda key: asked.append(key) or PIN.encode())
    load_identity(uri("token=the%20device;id=%02"), lambda key: asked.append(key) or PIN.encode())
    assert asked == ["pkcs11:token=the%20device;object=the%20model"]  # one login serves the process


def test_a_login_by_other_code_is_shared(logged_out):
    with logged_out.open(user_pin=PIN):
        stanza = load_identity(uri(), pin).recipient().wrap(SESSION_KEY)
        assert load_identity(uri(), pin).unwrap(stanza) == SESSION_KEY
        tokens._sessions.clear()


# ------------------------------------------------------------------------------------------------- refusals


def flipped(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[-1] ^= 1
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stanza: stanza | {"wrapped": flipped(stanza["wrapped"])},
        lambda stanza: stanza | {"wrapped": base64.b64encode(b"\xff" * 256).decode()},
        lambda stanza: stanza | {"wrapped": base64.b64encode(bytes(255)).decode()},
        lambda stanza: stanza | {"wrapped": ""},
        lambda stanza: stanza | {"wrapped": "*"},
        lambda stanza: stanza | {"hash": "md5"},
        lambda stanza: stanza | {"type": "hpke-mlkem768-x25519"},
    ],
)
def test_altered_stanzas_are_refused(identity, spoil):
    stanza = identity.recipient().wrap(SESSION_KEY)
    with pytest.raises(errors.AuthenticationError):
        identity.unwrap(spoil(stanza))
    assert identity.unwrap(stanza) == SESSION_KEY


def test_another_key_of_the_token_does_not_open(identity):
    other = load_identity(uri("token=the%20device;id=%02"), pin)
    with pytest.raises(errors.AuthenticationError, match="does not open"):
        other.unwrap(identity.recipient().wrap(SESSION_KEY))


def test_a_hash_that_the_token_lacks(public, identity):
    (recipient,) = load_recipients([public])
    stanza = RsaRecipient(recipient.public_key, "sha256").wrap(SESSION_KEY)
    with pytest.raises(errors.IdentityError, match="does not know RSA-OAEP with sha256.*keygen --from"):
        identity.unwrap(stanza)


def test_a_public_key_file_with_an_unknown_hash(public):
    public.write_text(public.read_text().replace("sha1", "md5"))
    with pytest.raises(errors.RecipientError, match="unknown oaep-hash; there are sha256, sha1"):
        load_recipients([public])


def test_the_hash_line_is_for_the_key_that_follows(public, alice, tmp_path):
    both = tmp_path / "both.pem"
    for text in (
        public.read_bytes() + alice.public.read_bytes(),
        alice.public.read_bytes() + public.read_bytes(),
    ):
        both.write_bytes(text)
        hashes = {recipient.key_id: recipient.hash_name for recipient in load_recipients([both])}
        assert hashes[load_recipients([public])[0].key_id] == "sha1"
        assert hashes[load_recipients([alice.public])[0].key_id] == "sha256"


# python-pkcs11 cannot end its search in a dead session, and says so where nobody can catch it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_token_that_went_away(logged_out):
    """A dead session is an error that says so, and the next load opens another."""
    identity = load_identity(uri(), pin)
    stanza = identity.recipient().wrap(SESSION_KEY)
    pkcs11.lib(MODULE).reinitialize()
    with pytest.raises(errors.IdentityError, match="the token 'the device' fails"):
        identity.unwrap(stanza)
    assert load_identity(uri(), pin).unwrap(stanza) == SESSION_KEY
    pkcs11.lib(MODULE).reinitialize()
    with pytest.raises(errors.IdentityError, match="the token refuses"):
        load_identity(uri(), pin)
    assert load_identity(uri(), pin).unwrap(stanza) == SESSION_KEY


def test_nothing_secret_is_shown(identity, public):
    sealed = secret.seal(b"weights", content_type="params", recipients=[public])
    with context.use(identity=uri(), passphrase=PIN) as keys:
        secret.unseal(sealed, content_type="params")
        assert PIN not in repr(keys) + repr(keys.identity()) + repr(vars(keys.identity()))
    assert PASSPHRASE not in repr(identity)
