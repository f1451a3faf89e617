"""The owner's half of the PyTorch tutorial: seal a model to another party's key, sign it, hand it over.

    python tutorials/secret/encrypt.py [FOLDER]

Takes FOLDER/third_party/rsa_public_key.pem, which the third party made with `tvmc keygen`; leaves in that
folder model.pt.sealed and owner.pem, the key to check the owner's signature with. from_pytorch.py goes on
from there. The passphrase of the owner's signing key is asked for, or taken from TVM_SECRET_PASSPHRASE.
"""

from __future__ import annotations

import shutil

import common
import models

import tvm_secret as secret
from tvm_secret import context, keyfiles


def main() -> None:
    options = common.options(__doc__, photo=False)
    owner, third_party = options.folder / "owner", options.folder / "third_party"

    # The owner's own key: it seals nothing, it says who vouches for the model. (`tvmc keygen --signing`)
    sign_key, verification_key = keyfiles.write_pair(
        keyfiles.generate_signing(), owner, keyfiles.SIGNING_NAMES, context.new_passphrase(), overwrite=True
    )

    # The model is sealed to the third party, so that not even its owner can open the sealed file. It may
    # travel any way: by mail, on a stick, through a public bucket.
    (model,) = models.files("pytorch")
    with secret.use(recipients=third_party / "rsa_public_key.pem", sign_key=sign_key):
        secret.seal_file(model, third_party / "model.pt.sealed", content_type="model/pytorch")

    # The verification key has to arrive unaltered: handed over in person, say, or compared by telephone.
    shutil.copy(verification_key, third_party / "owner.pem")
    print(f"sealed and signed for the third party: {third_party / 'model.pt.sealed'}")


if __name__ == "__main__":
    main()
