"""A local KMS: moto's, with the one operation that it lacks, Decrypt by an RSA key, as AWS documents it."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from collections.abc import Iterator

import pytest
from Crypto.Cipher import PKCS1_OAEP
from Crypto.Hash import SHA1, SHA256
from Crypto.PublicKey import RSA


@contextlib.contextmanager
def running() -> Iterator[str]:
    """Serve on a free port of this machine inside the block; gives the address."""
    from moto.kms.exceptions import InvalidCiphertextException
    from moto.kms.responses import KmsResponse
    from moto.server import ThreadedMotoServer

    def decrypt(self: KmsResponse) -> str:
        key_id, algorithm = self._get_param("KeyId"), self._get_param("EncryptionAlgorithm")
        self._validate_key_id(key_id)
        key = self.kms_backend.describe_key(self.kms_backend.any_id_to_key_id(key_id))
        if algorithm not in key.encryption_algorithms:
            raise InvalidCiphertextException
        numbers = key.private_key.private_key.private_numbers()
        own = RSA.construct((numbers.public_numbers.n, numbers.public_numbers.e, numbers.d))
        cipher = PKCS1_OAEP.new(own, SHA256 if algorithm == "RSAES_OAEP_SHA_256" else SHA1)
        try:
            plain = cipher.decrypt(self._get_param("CiphertextBlob"))
        except ValueError:
            raise InvalidCiphertextException from None
        return json.dumps(
            {
                "Plaintext": base64.b64encode(plain).decode(),
                "KeyId": key.arn,
                "EncryptionAlgorithm": algorithm,
            }
        )

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KmsResponse, "decrypt", decrypt)
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        host, port = moto.get_host_and_port()
        yield f"http://{host}:{port}"
        moto.stop()
