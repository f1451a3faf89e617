"""RSA keys in the AWS Key Management Service: `awskms:` and a key id, `alias/NAME`, or either one's ARN.

The key is an asymmetric one for encryption and decryption (RSA_2048, RSA_3072 or RSA_4096). The private key
stays in the service, which unwraps session keys itself by RSAES_OAEP_SHA_256 (or _1). Who opens needs
kms:GetPublicKey and kms:Decrypt; who seals needs only the public key file that `tvmc keygen --from` writes.
Credentials, region and endpoint come from where every AWS program takes them: the environment, the shared
configuration files, the instance's role; an ARN names its region itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from ..errors import IdentityError
from ..extras import require
from . import unopened
from .rsa import OaepIdentity

__all__ = ["AwsKmsIdentity"]

_ALGORITHMS = {"sha256": "RSAES_OAEP_SHA_256", "sha1": "RSAES_OAEP_SHA_1"}
_TIMEOUT = 10  # seconds, to connect and to read, thrice at most
_REFUSALS = {
    "AccessDeniedException": "these credentials may not use it (kms:GetPublicKey and kms:Decrypt are needed)",
    "NotFoundException": "there is no such key in this account and region",
    "DisabledException": "the key is disabled",
    "KMSInvalidStateException": "the key's state does not allow it (is it being deleted?)",
    "InvalidKeyUsageException": "the key is not one for encryption and decryption",
    "UnsupportedOperationException": "the key is not an asymmetric one",
    "UnrecognizedClientException": "AWS does not know these credentials",
    "InvalidSignatureException": "AWS does not accept these credentials",
    "ExpiredTokenException": "the credentials have expired",
}


class AwsKmsIdentity(OaepIdentity):
    def __init__(self, client: Any, key: str, public_key: rsa.RSAPublicKey) -> None:
        super().__init__(public_key)
        self._client = client
        self._key = key

    def _decrypt(self, wrapped: bytes, hash_name: str) -> bytes:
        with _refusals(self._key), _not_logged():
            try:
                answer = self._client.decrypt(
                    KeyId=self._key, CiphertextBlob=wrapped, EncryptionAlgorithm=_ALGORITHMS[hash_name]
                )
            except self._client.exceptions.InvalidCiphertextException:
                raise unopened() from None
            return answer["Plaintext"]


def identity_from_uri(uri: str, passphrase: Callable[[str], bytes] | None) -> AwsKmsIdentity:
    """Ask the service for the public key. Raises `IdentityError` when it cannot be had."""
    boto3 = require("boto3", "aws", "a key in AWS KMS")
    from botocore.config import Config

    key = uri.removeprefix("awskms:")
    if not key:
        raise IdentityError("awskms: is followed by a key id, alias/NAME or an ARN")
    region = key.split(":")[3] if key.count(":") >= 5 else None
    limits = Config(
        connect_timeout=_TIMEOUT,
        read_timeout=_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 3},
    )
    with _refusals(key):
        client = boto3.session.Session().client("kms", region_name=region, config=limits)
        answer = client.get_public_key(KeyId=key)
    # From here on by the id that it had just now: an alias can be moved to another key.
    return AwsKmsIdentity(client, answer["KeyId"], _public_key(answer, key))


def _public_key(answer: dict[str, Any], key: str) -> rsa.RSAPublicKey:
    try:
        public_key = load_der_public_key(answer["PublicKey"])
    except (ValueError, UnsupportedAlgorithm):
        public_key = None
    knows = set(_ALGORITHMS.values()) <= set(answer.get("EncryptionAlgorithms", ()))
    if not knows or not isinstance(public_key, rsa.RSAPublicKey):
        raise IdentityError(f"AWS KMS: {key} is not an RSA key for encryption and decryption")
    return public_key


@contextlib.contextmanager
def _refusals(key: str) -> Iterator[None]:
    """One line for each failure, from its code alone: AWS's own text can quote a request's session token."""
    from botocore import exceptions as e

    try:
        yield
    except e.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "unknown"))
        reason = _REFUSALS.get(code, f"it answers {code}")
    except (e.NoCredentialsError, e.PartialCredentialsError, e.CredentialRetrievalError):
        reason = "no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    except e.NoRegionError:
        reason = "no region: set AWS_DEFAULT_REGION, or give the key's ARN"
    except (e.ConnectionError, e.HTTPClientError):
        reason = "the service cannot be reached"
    except e.BotoCoreError as error:
        reason = f"it cannot be asked: {type(error).__name__}"
    else:
        return
    raise IdentityError(f"AWS KMS: {key}: {reason}") from None


@contextlib.contextmanager
def _not_logged() -> Iterator[None]:
    """Keep the answer, which is a session key, out of botocore's log, which at DEBUG holds whole bodies."""
    logger = logging.getLogger("botocore.parsers")

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
