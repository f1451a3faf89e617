"""The main job on a real model and a real photo: keys, encrypt, compile, run, and the five likeliest classes.

    make demo

EfficientNet-Lite0 (TFLite, uint8, ImageNet) and the photo come from packages; everything written lies in the
folder given (default: build/demo) and is sealed, but for the input and the prediction.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import common
import numpy as np


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, photo = common.quantised_model(), common.default_photo()
    np.savez(folder / "in.npz", images=common.pixels(photo))

    # A passphrase for this run alone; in earnest it is typed, or comes from a file or a secret store.
    os.environ["TVM_SECRET_PASSPHRASE"] = secrets.token_urlsafe(24)
    sign, trust = ("--sign-key", "signing_private_key.bin"), ("--signer", "signing_public_key.pem")
    tvmc(folder, "keygen")
    tvmc(folder, "keygen", "--signing")
    tvmc(folder, "encrypt", model, "-o", "model.tflite.sealed", *sign)
    tvmc(folder, "compile", "--target", "llvm", "-o", "model.tar", "model.tflite.sealed", *trust, *sign)
    tvmc(
        folder, "run", "-i", "in.npz", "-o", "out.npz", "--print-time", "--repeat", "10", "model.tar", *trust
    )

    with np.load(folder / "out.npz") as outputs:
        scores = common.probabilities(outputs["output_0"])
    print()
    common.print_top_five(photo, scores)
    print(f"\nThe sealed files lie in {folder}: model.tflite.sealed, model.tar")


def tvmc(folder: Path, *arguments: str | Path) -> None:
    words = [str(argument) for argument in arguments]
    print("$ tvmc", shlex.join(word if os.sep not in word else Path(word).name for word in words), flush=True)
    subprocess.run([sys.executable, "-m", "tvm_secret.cli", *words], cwd=folder, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "build/demo").resolve())
