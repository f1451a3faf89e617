"""Key pairs in files: private keys as encrypted PKCS#8, public keys as SubjectPublicKeyInfo, both PEM.

Private keys are encrypted with AES-256-CBC under a key that scrypt (RFC 7914, RFC 8018's PBES2) derives from
the passphrase with N = 2**15, r = 8, p = 3: OWASP's current minimum, in 32 MiB.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .errors import IdentityError, PassphraseError, SecretError
from .files import atomic_writer

__all__ = [
    "DEFAULT_BITS",
    "generate_rsa",
    "generate_signing",
    "load_private_key",
    "refuse_existing",
    "write_pair",
]

DEFAULT_BITS = 3072
MINIMUM_PASSPHRASE = 8
RSA_NAMES = ("rsa_private_key.bin", "rsa_public_key.pem")
SIGNING_NAMES = ("signing_private_key.bin", "signing_public_key.pem")
_SCRYPT = {"iteration_count": 2**15, "block_size": 8, "parallelization": 3, "salt_size": 16}


def generate_rsa(bits: int = DEFAULT_BITS) -> object:
    """A new RSA private key of 2048 to 16384 bits, public exponent 65537."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    if not 2048 <= bits <= 16384:
        raise SecretError(f"an RSA key has 2048 to 16384 bits, not {bits}")
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def generate_signing() -> object:
    """A new Ed25519 private key (RFC 8032)."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519.Ed25519PrivateKey.generate()


def write_pair(
    key, folder: Path, names: tuple[str, str], passphrase: bytes, *, overwrite: bool = False
) -> tuple[Path, Path]:
    """Write the pair into `folder` (made if absent) and return the two paths, private key first."""
    private, public = folder / names[0], folder / names[1]
    refuse_existing(folder, names, overwrite=overwrite)
    if len(passphrase) < MINIMUM_PASSPHRASE:
        raise PassphraseError(f"a passphrase has at least {MINIMUM_PASSPHRASE} characters")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_writer(private, 0o600) as file:
        file.write(_encrypted_pem(key, passphrase))
    with atomic_writer(public, 0o644) as file:
        file.write(_public_pem(key))
    return private, public


def refuse_existing(folder: Path, names: tuple[str, str], *, overwrite: bool) -> None:
    """Raise `SecretError` when a pair is there already and is not to be replaced."""
    for path in (folder / name for name in names):
        if path.exists() and not overwrite:
            raise SecretError(
                f"{path} exists; what was sealed to it opens with no other key (--force replaces it)"
            )


def _encrypted_pem(key, passphrase: bytes) -> bytes:
    from Crypto.IO import PEM, PKCS8
    from cryptography.hazmat.primitives import serialization as s

    # `cryptography` decrypts scrypt but offers no way to write it, hence PyCryptodome's PKCS8.
    plain = key.private_bytes(s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption())
    oid, inner, parameters = PKCS8.unwrap(plain)
    der = PKCS8.wrap(
        inner,
        oid,
        passphrase=passphrase,
        protection="scryptAndAES256-CBC",
        prot_params=_SCRYPT,
        key_params=parameters,
    )
    return PEM.encode(der, "ENCRYPTED PRIVATE KEY").encode() + b"\n"


def _public_pem(key) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    return key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)


def load_private_key(path: Path, passphrase: Callable[[Path], bytes] | None) -> object:
    """Read a PKCS#8 private key, PEM or DER, asking `passphrase` for what decrypts it.

    Raises `IdentityError` when it is no private key, `PassphraseError` when the passphrase does not fit.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as s

    try:
        data = path.read_bytes()
    except OSError as error:
        raise IdentityError(f"cannot read the private key {path}: {error.strerror}") from None
    load = s.load_pem_private_key if data.lstrip().startswith(b"-----BEGIN") else s.load_der_private_key
    try:
        return load(data, None)
    except TypeError:
        pass  # encrypted
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError(f"{path} is not a private key (PKCS#8)") from None
    if passphrase is None:
        raise PassphraseError(f"the private key {path} needs its passphrase")
    secret = passphrase(path)
    try:
        return load(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise PassphraseError(f"the passphrase does not open the private key {path}") from None
