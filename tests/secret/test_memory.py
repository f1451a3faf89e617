"""Buffers that are wiped, and a process that does not dump."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PASSPHRASE
from tvm_secret import context, envelope, memory
from tvm_secret.errors import SecretError
from tvm_secret.memory import SecretBuffer


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, (2 << 20) + 1])
def test_contents_are_kept_then_wiped(size):
    buffer = SecretBuffer(size)
    view = buffer.view
    view[:] = os.urandom(size)
    assert len(buffer) == size
    assert bytes(buffer) == bytes(view)
    buffer.close()
    assert not any(view)
    assert buffer.closed
    buffer.close()


def test_a_block_wipes_when_it_fails():
    kept = None
    with pytest.raises(RuntimeError), SecretBuffer(8) as buffer:  # noqa: PT012
        kept = buffer.view
        kept[:] = b"password"
        raise RuntimeError
    assert bytes(kept) == bytes(8)


def test_repr_shows_no_contents():
    with SecretBuffer(8) as buffer:
        buffer.view[:] = b"password"
        assert repr(buffer) == "<SecretBuffer of 8 bytes>"


def test_memory_is_locked_and_left_out_of_dumps():
    with SecretBuffer(1 << 20) as buffer:
        address = buffer._address
        region = False
        flags = {}
        for line in Path("/proc/self/smaps").read_text().splitlines():
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                low, high = (int(part, 16) for part in first.split("-"))
                region = low <= address < high
            elif region:
                flags[first] = line.split()[1:]
        assert "dd" in flags["VmFlags:"]
        if buffer._locked:
            assert "lo" in flags["VmFlags:"]


@pytest.mark.usefixtures("no_locking")
def test_one_warning_where_locking_is_forbidden():
    with pytest.warns(RuntimeWarning, match="may be swapped to disk") as caught:
        _ = [SecretBuffer(10), SecretBuffer(10)]
    assert len(caught) == 1


@pytest.fixture
def no_locking(monkeypatch):
    monkeypatch.setattr(memory, "_lock_warned", False)
    monkeypatch.setattr(memory, "_lock_required", False)
    monkeypatch.setattr(memory._libc, "mlock", lambda *_: -1)


@pytest.mark.usefixtures("no_locking")
@pytest.mark.parametrize("by", ["call", "environment"])
def test_an_error_where_locking_is_required_and_forbidden(monkeypatch, by):
    if by == "call":
        memory.require_locked_memory()
    else:
        monkeypatch.setenv(memory.LOCKED_VARIABLE, "1")
    with pytest.raises(SecretError, match="cannot be locked: the limit on locked memory is"):
        SecretBuffer(10)
    monkeypatch.undo()
    SecretBuffer(10).close()


@pytest.mark.usefixtures("no_locking")
def test_nothing_is_required_unless_asked_for(monkeypatch):
    monkeypatch.setenv(memory.LOCKED_VARIABLE, "0")
    with pytest.warns(RuntimeWarning):
        SecretBuffer(10)


def test_too_little_memory_is_a_memory_error():
    with pytest.raises(MemoryError):
        SecretBuffer(1 << 60)


def test_a_hardened_process_writes_no_core(tmp_path):
    code = (
        "import os, resource; from tvm_secret.memory import harden_process; harden_process(); "
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0], os.stat('/proc/self/environ').st_uid); "
        "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)); os.abort()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2
        ),
    )
    assert done.returncode == -6
    assert done.stdout.split() == ["0", "0", "0"]
    assert not list(tmp_path.iterdir())


def test_the_command_line_is_hardened_before_it_reads_a_key(alice):
    code = (
        "import ctypes; from tvm_secret.cli import main; main(['inspect', '/dev/null']); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["0"]


def test_the_command_line_asks_for_locked_memory(tmp_path, alice):
    code = (
        "import sys; from tvm_secret import memory; from tvm_secret.cli import main; "
        "memory._libc.mlock = lambda *_: -1; sys.exit(main(sys.argv[1:]))"
    )
    with context.use(recipients=[alice.public]):
        (tmp_path / "in.sealed").write_bytes(envelope.seal(b"x", content_type="inputs"))
    words = [
        "run",
        "-i",
        "in.sealed",
        "model.tar",
        "--identity",
        str(alice.private),
        "--require-locked-memory",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=os.environ | {"TVM_SECRET_PASSPHRASE": PASSPHRASE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "cannot be locked: the limit on locked memory is" in done.stderr


@pytest.mark.parametrize("use", ["identity", "sign_key"])
def test_hardened_before_a_private_key_is_read(alice, monkeypatch, use):
    calls = []
    monkeypatch.setattr(memory, "harden_process", lambda: calls.append("hardened"))
    path = {"identity": alice.private, "sign_key": alice.sign_private}[use]

    def passphrase(self, key):
        calls.append("read")
        return PASSPHRASE.encode()

    monkeypatch.setattr(context.Context, "passphrase", passphrase)
    with context.use(**{use: path}) as keys:
        keys.identity() if use == "identity" else keys.signer()
    assert calls == ["hardened", "read"]
