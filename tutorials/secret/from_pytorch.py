"""A confidential PyTorch model: what the third party does with the file that its owner handed over.

    python tutorials/secret/from_pytorch.py [FOLDER] [--photo FILE]

Run encrypt.py first. FOLDER/third_party has everything that the third party holds: its keys, the sealed
model and the owner's verification key. The model itself is nowhere in it. FOLDER gets the picture of the
result and a line of seconds in pytorch_time.txt. The keys' passphrase is asked for, or taken from
TVM_SECRET_PASSPHRASE.
"""

from __future__ import annotations

import common

import tvm_secret as secret
from tvm import relay
from tvm.contrib import graph_executor


def main() -> None:
    options = common.options(__doc__)
    mine = options.folder / "third_party"

    with secret.use(
        identity=mine / "rsa_private_key.bin",
        recipients=mine / "rsa_public_key.pem",
        sign_key=mine / "signing_private_key.bin",
        signers=mine / "owner.pem",  # and itself: what nobody trusted signed is refused before it is read
    ):
        # TorchScript holds no shapes, so the third party says what it is going to feed in. An archive of
        # torch.export.save (PT2) is read the same way, and does not need them.
        sealed_shape = secret.seal_json({"image": [1, 3, 224, 224]}, content_type="input-shapes")

        # `mod` and `params` are sealed bytes, and so are the parts of `artefact`. Each call opens what it
        # needs, in memory, for as long as it works.
        clock = common.Clock()
        mod, params = relay.frontend.from_pytorch(mine / "model.pt.sealed", sealed_shape)
        clock.lap("import")
        artefact = relay.build(mod, target="llvm", params=params)
        clock.lap("build")
        image = common.planes(common.pixels(options.photo))
        logits = graph_executor.Execution(artefact, {"image": image})
        clock.lap("run")

    # Only the prediction is in the clear.
    scores = common.probabilities(logits)
    common.print_top_five(options.photo, scores)
    common.draw_top_five(options.photo, scores, "A sealed PyTorch model", options.folder / "pytorch.png")
    common.append_times(options.folder, "pytorch", "sealed", clock.laps)


if __name__ == "__main__":
    main()
