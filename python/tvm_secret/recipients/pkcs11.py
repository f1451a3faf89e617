"""RSA keys in a PKCS#11 token (a smart card, a USB key, an HSM, SoftHSM): `pkcs11:` URIs of RFC 7512.

The private key stays in the token, which unwraps session keys itself by RSA-OAEP (PKCS #11 v2.40, 2.1.8). A
URI says where the key is:

- the token, by `token` (its label), `serial`, `manufacturer`, `model`, `slot-id`, as many as single it out;
- the key, by `object` (its label) and `id`, likewise; `type`, if given, is `private`;
- after `?`, the PKCS#11 module: `module-path`, absolute, or `module-name`, looked up by the dynamic linker as
  `libNAME.so` or `NAME.so`. Without either it is `$PKCS11_MODULE_PATH`, or else p11-kit's proxy, which offers
  every module that the system has registered. A module is native code that this process loads: whoever may
  write the URI may run code here, as with `LD_PRELOAD`;
- after `?` too, `pin-source`, a file (`file:/...` or an absolute path) whose first line is the PIN. Without
  it the PIN is the passphrase of whoever loads the key. `pin-value` is refused, since `ps` shows a URI and
  shells keep it; and so is a program as `pin-source`.

Not every token knows OAEP with SHA-256 (SoftHSM 2.6 does not): `recipient` finds out and says so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from cryptography.hazmat.primitives.asymmetric import rsa

from ..errors import AuthenticationError, IdentityError, PassphraseError
from ..extras import require
from ..keyfiles import read_passphrase
from . import unopened
from .rsa import HASHES, OaepIdentity, RsaRecipient

__all__ = ["TokenIdentity"]

MODULE_VARIABLE = "PKCS11_MODULE_PATH"
_P11_KIT = "p11-kit-proxy.so"
_PROBE = b"which OAEP hash?"

# `python-pkcs11` initialises modules for one thread at a time.
_lock = threading.RLock()
# Logging in counts for the whole process and tokens have few sessions to give, so that each has one here.
_sessions: dict[tuple[str, int, bytes], Any] = {}


class TokenIdentity(OaepIdentity):
    def __init__(
        self, key: Any, public_key: rsa.RSAPublicKey, token: str, forget: Callable[[], object]
    ) -> None:
        super().__init__(public_key)
        self._key = key
        self._token = token
        self._forget = forget

    def recipient(self) -> RsaRecipient:
        return RsaRecipient(self._public_key, self._hash_name)

    @functools.cached_property
    def _hash_name(self) -> str:
        """The first hash with which the token opens what it was just sent; no mechanism list tells."""
        for hash_name in HASHES:
            with contextlib.suppress(AuthenticationError, IdentityError):
                probe = RsaRecipient(self._public_key, hash_name).wrap_raw(_PROBE)
                if self.unwrap_raw(probe, hash_name) == _PROBE:
                    return hash_name
        raise IdentityError(f"{self._token}: its key does not decrypt with RSA-OAEP")

    def _decrypt(self, wrapped: bytes, hash_name: str) -> bytes:
        import pkcs11

        hash_id, mask = {
            "sha256": (pkcs11.Mechanism.SHA256, pkcs11.MGF.SHA256),
            "sha1": (pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1),
        }[hash_name]
        try:
            with _lock:
                return self._key.decrypt(
                    wrapped,
                    mechanism=pkcs11.Mechanism.RSA_PKCS_OAEP,
                    mechanism_param=(hash_id, mask, None),
                )
        except (pkcs11.ArgumentsBad, pkcs11.MechanismInvalid, pkcs11.MechanismParamInvalid):
            raise IdentityError(
                f"{self._token} does not know RSA-OAEP with {hash_name}: "
                "seal to the public key file that 'tvmc keygen --from' writes, which names what it knows"
            ) from None
        except (
            pkcs11.EncryptedDataInvalid,
            pkcs11.EncryptedDataLenRange,
            pkcs11.DataInvalid,
            pkcs11.DataLenRange,
            pkcs11.FunctionFailed,
            pkcs11.GeneralError,  # SoftHSM's word for wrong padding
        ):
            raise unopened() from None
        except pkcs11.PKCS11Error as error:
            self._forget()
            raise IdentityError(f"{self._token} fails: {type(error).__name__}") from None


@dataclass
class _Location:
    """A parsed URI."""

    name: str
    """Without its query: what may be shown."""
    token: dict[str, bytes] = field(default_factory=dict)
    slot_id: int | None = None
    label: str | None = None
    key_id: bytes | None = None
    modules: list[str] = field(default_factory=list)
    pin_file: Path | None = None


def identity_from_uri(uri: str, passphrase: Callable[[str], bytes] | None) -> TokenIdentity:
    """Find the token and the key, and log in.

    Raises `IdentityError` when not exactly one token and one key fit, `PassphraseError` for the PIN.
    """
    pkcs11 = require("pkcs11", "pkcs11", "a key in a PKCS#11 token")
    location = _parse(uri)
    with _lock, _refusals(location.name):
        module = _load_module(location.modules)
        slot, token = _find_token(module, location)
        entry = (module.so, slot.slot_id, token.serial)
        if entry not in _sessions:
            _sessions[entry] = _log_in(token, location, passphrase)
        forget = functools.partial(_sessions.pop, entry, None)
        try:
            key = _find_key(_sessions[entry], location)
            return TokenIdentity(key, _public_key(key), f"the token {token.label!r}", forget)
        except pkcs11.PKCS11Error:  # the session may be dead: the next load opens another
            forget()
            raise


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[None]:
    import pkcs11

    try:
        yield
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        raise PassphraseError(f"{name}: wrong PIN; a token locks after a few of them") from None
    except pkcs11.PinLocked:
        raise PassphraseError(f"{name}: the PIN is locked after too many wrong ones") from None
    except pkcs11.PKCS11Error as error:
        raise IdentityError(f"{name}: the token refuses: {type(error).__name__}") from None


# ------------------------------------------------------------------------------------------------------ URI

_TOKEN_ATTRIBUTES = {
    "token": "label",
    "serial": "serial",
    "manufacturer": "manufacturer_id",
    "model": "model",
}


def _parse(uri: str) -> _Location:
    path, _, query = uri.partition("?")
    location = _Location(path)
    for name, value in _attributes(path.removeprefix("pkcs11:"), ";").items():
        if name in _TOKEN_ATTRIBUTES:
            location.token[_TOKEN_ATTRIBUTES[name]] = unquote_to_bytes(value)
        elif name == "slot-id" and re.fullmatch("[0-9]+", value):
            location.slot_id = int(value)
        elif name == "object":
            location.label = unquote(value)
        elif name == "id":
            location.key_id = unquote_to_bytes(value)
        elif not (name == "type" and value == "private"):
            raise IdentityError(f"{path}: the attribute {name!r} is unknown, or has a value that cannot be")
    found = _attributes(query, "&")
    if "pin-value" in found:
        raise IdentityError(
            f"{path}: pin-value would show the PIN to everyone on this machine; "
            "use pin-source=file:..., --passphrase-file or the prompt"
        )
    if unknown := found.keys() - {"module-path", "module-name", "pin-source"}:
        raise IdentityError(f"{path}: the query attribute {min(unknown)!r} is unknown")
    if "pin-source" in found:
        location.pin_file = Path(unquote(found["pin-source"]).removeprefix("file:"))
        if not location.pin_file.is_absolute():
            raise IdentityError(f"{path}: pin-source is not the absolute path of a file")
    location.modules = _modules(found, path)
    return location


def _attributes(text: str, separator: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in filter(None, text.split(separator)):
        name, equals, value = part.partition("=")
        if not equals or name in found:
            raise IdentityError(
                f"a PKCS#11 URI is pkcs11:token=...;object=..., with no attribute twice: {name!r}"
            )
        found[name] = value
    return found


def _modules(query: dict[str, str], uri: str) -> list[str]:
    """What to try to load, in this order."""
    if "module-path" in query:
        path = unquote(query["module-path"])
        if not os.path.isabs(path):
            raise IdentityError(f"{uri}: module-path is not an absolute path")
        return [path]
    if "module-name" in query:
        name = unquote(query["module-name"])
        if not re.fullmatch(r"[\w.+-]+", name):
            raise IdentityError(f"{uri}: module-name is not a name")
        return [f"lib{name}.so", f"{name}.so"]
    return [os.environ.get(MODULE_VARIABLE) or _P11_KIT]


# -------------------------------------------------------------------------------------------- token and key


def _load_module(candidates: list[str]) -> Any:
    import pkcs11

    for path in candidates:
        with contextlib.suppress(pkcs11.PKCS11Error):
            return pkcs11.lib(path)
    raise IdentityError(
        f"the PKCS#11 module {' or '.join(candidates)} cannot be loaded: "
        f"give ?module-path=/... in the URI, or set {MODULE_VARIABLE}"
    )


def _find_token(module: Any, location: _Location) -> tuple[Any, Any]:
    from pkcs11 import TokenFlag

    found = []
    for slot in module.get_slots(token_present=True):
        token = slot.get_token()
        if token.flags & TokenFlag.TOKEN_INITIALIZED and _fits(slot, token, location):
            found.append((slot, token))
    if len(found) != 1:
        count = "no token fits" if not found else f"{len(found)} tokens fit; add serial= or slot-id="
        raise IdentityError(f"{location.name}: {count}")
    return found[0]


def _fits(slot: Any, token: Any, location: _Location) -> bool:
    if location.slot_id not in (None, slot.slot_id):
        return False
    for name, wanted in location.token.items():
        value = getattr(token, name)
        if (value.encode() if isinstance(value, str) else value) != wanted:
            return False
    return True


def _log_in(token: Any, location: _Location, passphrase: Callable[[str], bytes] | None) -> Any:
    import pkcs11

    if location.pin_file is not None:
        try:
            pin = read_passphrase(location.pin_file)
        except OSError as error:
            raise PassphraseError(f"cannot read the PIN in {location.pin_file}: {error.strerror}") from None
    elif passphrase is not None:
        pin = passphrase(location.name)
    else:
        raise PassphraseError(f"{location.name}: its PIN is needed")
    try:
        return token.open(user_pin=pin.decode())
    except UnicodeDecodeError:
        raise PassphraseError(f"{location.name}: a PIN is text in UTF-8") from None
    except pkcs11.UserAlreadyLoggedIn:  # by other code in this process
        return token.open()


def _find_key(session: Any, location: _Location) -> Any:
    from pkcs11 import Attribute, KeyType, ObjectClass

    wanted = {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: KeyType.RSA,
        Attribute.DECRYPT: True,
    }
    if location.label is not None:
        wanted[Attribute.LABEL] = location.label
    if location.key_id is not None:
        wanted[Attribute.ID] = location.key_id
    found = list(session.get_objects(wanted))
    if len(found) != 1:
        count = "no RSA private key that decrypts fits"
        if found:
            count = f"{len(found)} private keys fit; add object= or id="
        raise IdentityError(f"{location.name}: {count}")
    return found[0]


def _public_key(key: Any) -> rsa.RSAPublicKey:
    from pkcs11 import Attribute

    modulus, exponent = (
        int.from_bytes(key[name], "big") for name in (Attribute.MODULUS, Attribute.PUBLIC_EXPONENT)
    )
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()
