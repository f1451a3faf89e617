"""Trace every file that a process tree writes, and look for the model in what lands on disk."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import small_model
from conftest import PASSPHRASE

CANARY = "canary_7f3a91"

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)


def traced(folder, alice, *command) -> set[str]:
    """Run tvmc under strace; return every path opened for writing, by it or by a child of it."""
    log = folder.parent / "strace.log"
    env = os.environ | {
        "TVM_SECRET_IDENTITY": str(alice.private),
        "TVM_SECRET_RECIPIENTS": str(alice.public),
        "TVM_SECRET_PASSPHRASE": PASSPHRASE,
        "TMPDIR": str(folder),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    calls = "open,openat,openat2,creat,link,linkat,symlink,symlinkat,mknod,mknodat,execve"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-y", "-s", "300", "-e", f"trace={calls}", "-o", log,
         sys.executable, "-m", "tvm_secret.cli", *command],
        cwd=folder, env=env, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = set()
    for line in log.read_text().splitlines():
        assert "execve" not in line or sys.executable in line or "python" in line, f"started: {line}"
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT|creat\(|link", line) and not re.search(r"= -1 E", line):
            found = re.search(r'"([^"]*)"', line)
            if found and "O_DIRECTORY" not in line:
                written.add(found[1])
    return written


def test_the_model_never_reaches_the_disk(tmp_path, alice):
    folder = tmp_path / "work"
    folder.mkdir()
    model = small_model.onnx_bytes(name=CANARY)
    np.savez(folder / "in.npz", data=small_model.image())
    (tmp_path / "model.onnx").write_bytes(model)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((16, 3, 3, 3)).astype("float32").tobytes()
    assert weights in model
    assert CANARY.encode() in model
    plain = [CANARY.encode(), weights[:64], weights[-64:], b"\x7fELF", b"vm_load_executable"]

    written = traced(folder, alice, "encrypt", "../model.onnx", "-o", "model.sealed")
    written |= traced(folder, alice, "compile", "-o", "model.tar", "model.sealed")
    written |= traced(folder, alice, "run", "-i", "in.npz", "-o", "out.npz", "model.tar")

    # Only the outputs, under their temporary names, and what is no file: devices and anonymous memory.
    expected = re.compile(r"(.*/)?\.(model\.sealed|model\.tar|out\.npz)\.[0-9a-f]{12}\.part")
    others = {path for path in written if not expected.fullmatch(path)}
    assert {path for path in others if not re.match(r"/dev/(null|tty|shm/)|/proc/self/fd/", path)} == set()
    assert len(written - others) == 3

    left = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert set(left) == {"in.npz", "model.sealed", "model.tar", "out.npz"}
    for name, content in left.items():
        for piece in plain:
            assert piece not in content, f"{name} holds plaintext"


def test_the_tracing_itself_sees_plaintext(tmp_path, alice):
    """A control: the same method finds a process that does write the model down."""
    folder = tmp_path / "work"
    folder.mkdir()
    log = tmp_path / "log"
    subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=openat", "-o", log, sys.executable, "-c",
         f"import os; f = open('{folder}/leak', 'wb'); f.write(b'{CANARY}')"],
        check=True,
    )  # fmt: skip
    assert re.search(r'"[^"]*leak", O_WRONLY\|O_CREAT', log.read_text())
