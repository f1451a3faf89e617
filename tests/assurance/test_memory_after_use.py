"""After a module is closed, or Execution has returned, no byte of the weights is left in the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import memory_scan
import numpy as np

import small_model
from conftest import PASSPHRASE
from tvm_secret import artefact

SIZE = 24


def test_weights_are_gone_when_the_module_is_closed(tvmc, keys):
    (tvmc.folder / "x.onnx").write_bytes(small_model.onnx_bytes())
    np.savez(tvmc.folder / "in.npz", data=small_model.image())
    tvmc("encrypt", "x.onnx")
    tvmc("compile", "x.onnx.sealed", "-o", "x.tar")
    opened = artefact.open_artefact(tvmc.folder / "x.tar")
    secrets = {}
    for name, weight in opened.weights.items():
        raw = weight.tobytes()
        for start in range(0, len(raw) - SIZE, len(raw) // 4):
            if len(set(raw[start : start + SIZE])) > SIZE // 2:  # not the zeros that packing adds
                secrets[f"{name} from {start}"] = raw[start : start + SIZE]
    opened.close()
    assert len(secrets) >= 4
    done = subprocess.run(
        [sys.executable, Path(memory_scan.__file__), "x.tar", "in.npz",
         json.dumps({kind: memory_scan.masked(secret).hex() for kind, secret in secrets.items()})],
        cwd=tvmc.folder, capture_output=True, text=True,
        env=os.environ | {
            "TVM_SECRET_IDENTITY": str(tvmc.keys.private), "TVM_SECRET_PASSPHRASE": PASSPHRASE,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    none = dict.fromkeys(secrets, 0)
    assert counts["before"] == none
    # A control: the search finds them while they are in use, and there is no copy beside the locked one.
    assert counts["loaded"] == counts["run"] == dict.fromkeys(secrets, 1)
    assert counts["closed"] == none
    assert counts["after Execution"] == none
