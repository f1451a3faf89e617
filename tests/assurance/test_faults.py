"""Kills, interrupts, full and broken disks, too little memory: nothing partial, nothing plain, no traceback.

TVM_SECRET_TEST_KILLS says how many kills there are for each command (default: 6).
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import small_model
import tvm_secret as secret
from conftest import PASSPHRASE, Tvmc, run_tvmc
from tvm_secret import artefact, envelope, files, formats

KILLS = int(os.environ.get("TVM_SECRET_TEST_KILLS", "6"))
CANARY = "canary_7f3a91"
COMMANDS = {
    "encrypt": ["encrypt", "../model.onnx", "-o", "new.sealed"],
    "compile": ["compile", "model.sealed", "-o", "new.tar"],
    "rewrap": ["rewrap", "model.tar", "-o", "new.tar"],
    "rewrap in place": ["rewrap", "again.sealed", "-o", "again.sealed"],
    "run": ["run", "model.tar", "-i", "../in.npz", "-o", "new.npz"],
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory, alice) -> Path:
    """A plain model and inputs, and in `work` what the commands begin with."""
    folder = tmp_path_factory.mktemp("originals")
    (folder / "work").mkdir()
    (folder / "model.onnx").write_bytes(small_model.onnx_bytes(name=CANARY))
    np.savez(folder / "in.npz", data=small_model.image())
    tvmc = Tvmc(folder / "work", alice)
    tvmc("encrypt", "../model.onnx", "-o", "model.sealed")
    tvmc("compile", "-o", "model.tar", "model.sealed")
    shutil.copy(folder / "work" / "model.sealed", folder / "work" / "again.sealed")
    return folder


@pytest.fixture
def work(originals, tmp_path, alice) -> Tvmc:
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    return Tvmc(tmp_path / "work", alice)


def check_whole(path: Path) -> None:
    """Whatever bears a final name is complete."""
    if path.suffix == ".sealed":
        secret.unseal(path, content_type="model/onnx").close()
    elif path.suffix == ".tar":
        artefact.open_artefact(path).close()
    else:
        with np.load(path) as arrays:
            assert arrays["output_0"].shape == (1, 10)


def check_folder(folder: Path) -> None:
    """No final name has partial contents, and no file, hidden ones included, holds the model."""
    for path in folder.iterdir():
        content = path.read_bytes()
        assert CANARY.encode() not in content
        assert b"\x7fELF" not in content
        if path.name.startswith("."):
            assert path.name.endswith(".part")
        else:
            check_whole(path)


# ------------------------------------------------------------------------------------------------- kills


def after(seconds: float, number: int) -> Callable:
    def send(process) -> None:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)

    return send


def duration(tvmc: Tvmc, words: list[str]) -> float:
    start = time.perf_counter()
    tvmc(*words)
    return time.perf_counter() - start


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_any_moment(keys, work, name):
    words, rng = COMMANDS[name], random.Random(name)
    usual = duration(work, words)
    outcomes = set()
    for _ in range(KILLS):
        for new in work.folder.glob("new.*"):
            if rng.random() < 0.5:  # a file of that name is there before, or is not
                new.unlink()
        done = work(*words, check=False, meanwhile=after(rng.uniform(0, usual), signal.SIGKILL))
        outcomes.add(done.returncode)
        check_folder(work.folder)
    assert outcomes <= {0, -signal.SIGKILL}
    work(*words)
    check_folder(work.folder)


@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted(keys, work, name):
    words, rng = COMMANDS[name], random.Random(name)
    usual = duration(work, words)
    for new in work.folder.glob("new.*"):
        new.unlink()
    for _ in range(max(2, KILLS // 3)):
        before = set(work.folder.iterdir())
        interrupt = after(rng.uniform(0, usual), signal.SIGINT)
        done = work(*words, check=False, work=tvmc_when_ready, meanwhile=interrupt)
        assert done.returncode in (0, 1), done.stderr
        if done.returncode == 1:
            # Nothing at all where the signal came before the process had an output.
            assert done.stderr.splitlines()[-1:] in ([], ["tvmc: error: interrupted"])
            assert "Traceback" not in done.stderr
            assert set(work.folder.iterdir()) == before
        check_folder(work.folder)


def tvmc_when_ready(words: list[str]) -> int:
    """As `run_tvmc`, in a process that Ctrl-C interrupts, as it does those that a shell starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run_tvmc(words)
    except KeyboardInterrupt:  # before the command line was reached
        print("tvmc: error: interrupted", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


# ------------------------------------------------------------------------------------------------- disks


def failing(tmp_path: Path, inject: str, words: list[str], alice) -> subprocess.CompletedProcess:
    """The command in a process whose system calls fail as `inject` says (strace(1), tampering)."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    environment = os.environ | {
        "TVM_SECRET_IDENTITY": str(alice.private),
        "TVM_SECRET_RECIPIENTS": str(alice.public),
        "TVM_SECRET_PASSPHRASE": PASSPHRASE,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    calls = inject.partition(":")[0]
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", f"trace={calls}"]
    return subprocess.run(
        [*strace, "-e", f"inject={inject}", sys.executable, "-m", "tvm_secret.cli", *words],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("inject", "message"),
    [
        ("write:error=ENOSPC:when=1", "No space left on device"),
        ("fsync:error=EIO", "Input/output error"),
        ("rename,renameat,renameat2:error=EDQUOT", "Disk quota exceeded"),
        ("copy_file_range,sendfile:error=EIO", "Input/output error"),
        ("fsync:error=EROFS", "Read-only file system"),
    ],
)
def test_a_disk_that_fails_loses_nothing(work, alice, inject, message):
    words = COMMANDS["rewrap"]
    old = (work.folder / "model.tar").read_bytes()
    shutil.copy(work.folder / "model.tar", work.folder / "new.tar")
    done = failing(work.folder, inject, words, alice)
    assert done.returncode == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("tvmc: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert (work.folder / "new.tar").read_bytes() == old
    assert not list(work.folder.glob(".*"))


def mounted(folder: Path, options: str, words: list[str], alice) -> subprocess.CompletedProcess:
    """The command in a mount namespace of its own, with a small or a read-only disk at folder/disk."""
    (folder / "disk").mkdir()
    mount = f"mount -t tmpfs -o {options} none disk && "
    possible = subprocess.run(["unshare", "-m", "sh", "-c", f"{mount} true"], cwd=folder, capture_output=True)
    if possible.returncode:
        pytest.skip("no file system can be mounted here")
    environment = os.environ | {"TVM_SECRET_RECIPIENTS": str(alice.public)}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mount} "$@"; code=$?; ls -A disk; exit $code', "sh",
         sys.executable, "-m", "tvm_secret.cli", *words],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("size=8k", "disk/big.sealed: No space left on device"),
        ("ro", "disk/big.sealed: Read-only file system"),
    ],
)
def test_a_small_or_a_read_only_disk(tmp_path, alice, options, message):
    (tmp_path / "big.onnx").write_bytes(bytes(100_000))
    done = mounted(tmp_path, options, ["encrypt", "big.onnx", "-o", "disk/big.sealed"], alice)
    assert done.returncode == 1
    assert done.stderr == f"tvmc: error: {message}\n"
    assert done.stdout == ""  # nothing is left on that disk


@pytest.mark.parametrize("limit", [0, 100, 5000, 100_000])
def test_a_limit_on_the_size_of_files(tmp_path, alice, limit):
    (tmp_path / "big.onnx").write_bytes(bytes(200_000))
    done = subprocess.run(
        [sys.executable, "-m", "tvm_secret.cli", "encrypt", "big.onnx", "-r", alice.public],
        cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "tvmc: error: big.onnx.sealed: File too large\n")
    assert [path.name for path in tmp_path.iterdir()] == ["big.onnx"]


class Short(io.FileIO):
    """A file that reads and writes at most 7 bytes at a time, as signals and network disks may make it."""

    def readinto(self, buffer) -> int:
        return super().readinto(memoryview(buffer)[:7])

    def write(self, data) -> int:
        return super().write(memoryview(data)[:7])


def short_open(path, mode: str) -> io.BufferedReader:
    assert mode == "rb"
    return io.BufferedReader(Short(path))


@pytest.mark.parametrize("suite", ["aes-eax", "cobblestone-256"])
def test_short_reads_and_writes(keys, tmp_path, monkeypatch, suite):
    plain = np.random.default_rng(0).bytes(40_000)
    (tmp_path / "x.onnx").write_bytes(plain)
    for module in (envelope, formats):
        monkeypatch.setattr(module, "open", short_open, raising=False)
    monkeypatch.setattr(files, "_Output", lambda descriptor, path: Short(descriptor, "r+"))
    secret.seal_file(tmp_path / "x.onnx", tmp_path / "x.sealed", content_type="model/onnx", suite=suite)
    with secret.unseal(tmp_path / "x.sealed", content_type="model/onnx") as opened:
        assert bytes(opened) == plain
    envelope.rewrap(tmp_path / "x.sealed", tmp_path / "y.sealed")
    monkeypatch.undo()
    with secret.unseal(tmp_path / "y.sealed", content_type="model/onnx") as opened:
        assert bytes(opened) == plain


# ---------------------------------------------------------------------------------------- pipes and memory


@pytest.mark.parametrize(
    "words", [["inspect", "model.sealed"], ["inspect", "--json", "model.tar"], ["--help"]]
)
def test_output_that_nobody_takes(originals, words):
    """A closed pipe, and a full device in its place: exit code 1, at most one line, no traceback."""
    command = [sys.executable, "-m", "tvm_secret.cli", *words]
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full:
        for out, message in ((writer, ""), (full, "tvmc: error: input or output: No space left on device\n")):
            done = subprocess.run(
                command, cwd=originals / "work", stdout=out, stderr=subprocess.PIPE, text=True
            )
            assert (done.returncode, done.stderr) == (1, message)
    os.close(writer)


def with_less_memory(words: list[str]) -> int:
    """The first word says how many MB the process may take beyond what it has."""
    spare, *rest = words
    in_use = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_DATA, (in_use + int(float(spare) * 1e6),) * 2)
    return run_tvmc(rest)


@pytest.mark.parametrize("name", ["encrypt", "run", "rewrap"])
@pytest.mark.parametrize("spare", [0, 0.5, 2, 20])
def test_too_little_memory(keys, work, name, spare):
    done = work(str(spare), *COMMANDS[name], check=False, work=with_less_memory)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode:
        assert done.stderr.startswith("tvmc: error: ")
        assert not list(work.folder.glob("new.*"))
    check_folder(work.folder)
