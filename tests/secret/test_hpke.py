"""Post-quantum hybrid recipients, against the drafts' own vectors and one of ours that is frozen."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from Crypto.IO import PKCS8
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import tvm_secret as secret
from conftest import PASSPHRASE
from tvm_secret import context, errors, keyfiles, signing, xwing
from tvm_secret.recipients import hpke, load_identity, load_recipients

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "xwing.json").read_text())
NAMES = keyfiles.POST_QUANTUM_NAMES
SESSION_KEY = bytes(range(32))


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pq")
    return keyfiles.write_pair(keyfiles.generate_post_quantum(), folder, NAMES, PASSPHRASE.encode())


@pytest.fixture(scope="module")
def identity(pair):
    return load_identity(pair[0], lambda path: PASSPHRASE.encode())


@pytest.fixture
def example(tmp_path) -> tuple[Path, Path]:
    """The pair of draft-connolly-cfrg-xwing-kem."""
    for name in ("private_key", "public_key"):
        (tmp_path / name).write_text(VECTORS["draft-connolly-cfrg-xwing-kem"][name])
    return tmp_path / "private_key", tmp_path / "public_key"


def test_encodings_are_those_of_the_draft(example):
    private, public = example
    key = keyfiles.load_private_key(private, None)
    assert keyfiles.public_pem(key.public_key()) == public.read_bytes()
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert der == base64.b64decode("".join(private.read_text().splitlines()[1:-1]))
    (recipient,) = load_recipients([public])
    assert recipient.key_id == load_identity(private).key_id
    assert recipient.to_pem() == public.read_bytes()


def test_suite_is_that_of_the_hpke_draft():
    """Key expansion, decapsulation and key schedule; the AEAD under the key and nonce they have to give."""
    vector = VECTORS["draft-ietf-hpke-pq"]
    assert (vector["kem_id"], vector["kdf_id"], vector["aead_id"]) == (0x647A, 1, 3)
    info, enc, seed, key, nonce = (
        bytes.fromhex(vector[name]) for name in ("info", "enc", "skRm", "key", "base_nonce")
    )
    private = xwing.XWingPrivateKey(seed)
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki.endswith(bytes.fromhex(vector["pkRm"]))
    sealed = enc + ChaCha20Poly1305(key).encrypt(nonce, SESSION_KEY, b"")
    assert hpke._SUITE.decrypt(sealed, private.hpke_key, info) == SESSION_KEY


def test_old_stanzas_stay_readable(example):
    frozen = VECTORS["stanza"]
    assert load_identity(example[0]).unwrap(frozen["stanza"]).hex() == frozen["session_key"]


def test_pair_on_disk_is_encrypted_as_others_are(pair):
    private, public = pair
    assert (private.name, public.name) == ("pq_private_key.bin", "pq_public_key.pem")
    assert private.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    der = base64.b64decode(b"".join(private.read_bytes().splitlines()[1:-1]))
    assert bytes.fromhex("06092b06010401da47040b") in der  # scrypt
    assert bytes.fromhex("0203008000" + "020108" + "020103") in der  # N, r, p
    oid, seed, parameters = PKCS8.unwrap(der, PASSPHRASE)
    assert (oid, len(seed), parameters) == ("1.3.6.1.4.1.62253.25722", 32, None)
    with pytest.raises(errors.PassphraseError, match="does not open"):
        load_identity(private, lambda path: b"another one")


def test_der_is_read_too(pair, tmp_path):
    text = pair[0].read_bytes()
    (tmp_path / "key.der").write_bytes(base64.b64decode(b"".join(text.splitlines()[1:-1])))
    loaded = load_identity(tmp_path / "key.der", lambda path: PASSPHRASE.encode())
    assert loaded.key_id == load_recipients([pair[1]])[0].key_id


@pytest.mark.parametrize("suite", ["aes-eax", "cobblestone-256"])
def test_seal_and_open(pair, alice, suite):
    """Beside an RSA recipient: either opens it."""
    sealed = secret.seal(b"weights", content_type="params", recipients=[alice.public, pair[1]], suite=suite)
    stanza = secret.inspect(sealed).recipients[1]
    assert stanza["type"] == "hpke-mlkem768-x25519"
    assert set(stanza) == {"type", "key", "wrapped"}
    assert len(base64.b64decode(stanza["wrapped"])) == 1120 + 32 + 16
    for private in (alice.private, pair[0]):
        with context.use(identity=private, passphrase=PASSPHRASE):
            assert bytes(secret.unseal(sealed, content_type="params")) == b"weights"


def test_what_this_process_makes_it_opens_again(identity):
    with context.use(identity=identity):
        sealed = secret.envelope.Session.to_self().seal(b"module", content_type="ir-module")
        assert bytes(secret.unseal(sealed, content_type="ir-module")) == b"module"


def test_each_wrapping_differs(identity):
    recipient = identity.recipient()
    assert recipient.wrap(SESSION_KEY)["wrapped"] != recipient.wrap(SESSION_KEY)["wrapped"]


def flipped(text: str, index: int) -> str:
    data = bytearray(base64.b64decode(text))
    data[index] ^= 1
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stanza: stanza | {"wrapped": flipped(stanza["wrapped"], 0)},  # ML-KEM's part
        lambda stanza: stanza | {"wrapped": flipped(stanza["wrapped"], 1100)},  # X25519's
        lambda stanza: stanza | {"wrapped": flipped(stanza["wrapped"], -1)},  # the AEAD's
        lambda stanza: stanza | {"wrapped": stanza["wrapped"][:100]},
        lambda stanza: stanza | {"wrapped": ""},
        lambda stanza: stanza | {"wrapped": "*"},
        lambda stanza: {name: value for name, value in stanza.items() if name != "wrapped"},
        lambda stanza: stanza | {"type": "rsa-oaep", "hash": "sha256"},
        lambda stanza: stanza | {"type": "hpke"},
    ],
)
def test_altered_stanzas_are_refused(identity, spoil):
    stanza = identity.recipient().wrap(SESSION_KEY)
    assert identity.unwrap(stanza) == SESSION_KEY
    with pytest.raises(errors.AuthenticationError):
        identity.unwrap(spoil(stanza))


def test_another_key_does_not_open(identity):
    stanza = hpke.HpkeIdentity(keyfiles.generate_post_quantum()).recipient().wrap(SESSION_KEY)
    with pytest.raises(errors.AuthenticationError, match="does not open"):
        identity.unwrap(stanza)


def test_raw_layout_is_for_rsa(pair, identity, alice):
    with pytest.raises(errors.RecipientError, match="one RSA recipient"):
        secret.seal(b"x", content_type="model/onnx", recipients=[pair[1]], layout="raw")
    raw = secret.seal(b"x", content_type="model/onnx", recipients=[alice.public], layout="raw")
    with context.use(identity=identity), pytest.raises(errors.NotSealedError):
        secret.unseal(raw, content_type="model/onnx")


def public_file(path: Path, encoded: bytes) -> Path:
    from Crypto.IO import PEM

    prefix = bytes.fromhex("308204d4300d060b2b0601040183e62d81c87a038204c100")
    path.write_text(PEM.encode(prefix + encoded, "PUBLIC KEY"))
    return path


def test_bad_public_keys_are_refused(example, tmp_path):
    good = bytes.fromhex(VECTORS["draft-ietf-hpke-pq"]["pkRm"])
    assert load_recipients([public_file(tmp_path / "good.pem", good)])
    # FIPS 203, 7.2: coefficients are below q; RFC 7748, 6.1: a point of low order gives no secret.
    for name, encoded in (("short", good[:-1]), ("unreduced", b"\xff" * 384 + good[384:])):
        with pytest.raises(errors.RecipientError, match="no public key that can be read"):
            load_recipients([public_file(tmp_path / f"{name}.pem", encoded)])
    (weak,) = load_recipients([public_file(tmp_path / "weak.pem", good[:1184] + bytes(32))])
    with pytest.raises(errors.RecipientError, match="weak"):
        weak.wrap(SESSION_KEY)


def test_keys_of_other_kinds(pair, tmp_path):
    with pytest.raises(errors.SignatureError):
        signing.load_verifiers([pair[1]])
    other = tmp_path / "x25519.bin"
    other.write_bytes(
        x25519.X25519PrivateKey.generate().private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    )
    with pytest.raises(errors.IdentityError, match="not a key that opens"):
        load_identity(other)
    other.write_bytes(PKCS8.wrap(bytes(32), "1.2.3.4", key_params=None))
    with pytest.raises(errors.IdentityError, match="is not a private key"):
        load_identity(other)
    other.write_bytes(PKCS8.wrap(bytes(32), "1.2.3.4", PASSPHRASE, "scryptAndAES128-CBC", key_params=None))
    with pytest.raises(errors.IdentityError, match="a kind of private key that is not used here"):
        load_identity(other, lambda path: PASSPHRASE.encode())
    with pytest.raises(ValueError, match="not an X-Wing private key"):
        xwing.XWingPrivateKey(bytes(31))


def test_encodings_that_are_not_written():
    key = keyfiles.generate_post_quantum()
    with pytest.raises(ValueError, match="plain PKCS#8"):
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="SubjectPublicKeyInfo"):
        key.public_key().public_bytes(Encoding.DER, PublicFormat.Raw)


def test_command_line(tvmc, alice):
    tvmc("keygen", "--post-quantum", "--out-dir", "pq")
    private, public = (tvmc.folder / "pq" / name for name in NAMES)
    (tvmc.folder / "m.onnx").write_bytes(b"a model")
    tvmc("encrypt", "m.onnx", "-o", "m", "-r", alice.public)
    tvmc("rewrap", "m", "-o", "m.pq", "-r", public)
    assert "hpke-mlkem768-x25519" in tvmc("inspect", "--json", "m.pq").stdout
    with context.use(identity=private, passphrase=PASSPHRASE):
        assert bytes(secret.unseal(tvmc.folder / "m.pq", content_type="model/onnx")) == b"a model"
    tvmc.refuses("keygen", "--post-quantum", "--out-dir", "pq", match="exists")
    assert tvmc("keygen", "--post-quantum", "--signing", check=False).returncode == 2
    tvmc("keygen", "--from", private, "--out-dir", "again")
    assert (tvmc.folder / "again" / NAMES[1]).read_bytes() == public.read_bytes()
