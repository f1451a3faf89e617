"""The owner seals EfficientNet-Lite0, in the format of a framework, to ./rsa_public_key.pem.

    python tutorials/secret/tvmc/encrypt.py onnx|keras|torch|tensorflow|tflite|mxnet

Writes FORMAT.sealed. For a file of one's own, `tvmc encrypt MODEL` does the same.
"""

from __future__ import annotations

from session import parse

import tvm_secret as secret


def main() -> None:
    chosen = parse(__doc__, photo=False)
    # An MXNet model has two files, and a SavedModel is a folder; each becomes one sealed file.
    files = chosen.model_files()
    source = files if len(files) > 1 else files[0]
    secret.seal_file(source, chosen.sealed, content_type=chosen.form.content_type)
    print(f"sealed model: {chosen.sealed}")


if __name__ == "__main__":
    main()
