"""Keys, folders and a small model that the whole suite shares."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from tvm_secret import context, keyfiles

# Slow machines fail no test, and every run tries the same examples.
hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("suite")

PASSPHRASE = "correct horse battery"
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class KeyPair:
    folder: Path

    @property
    def private(self) -> Path:
        return self.folder / keyfiles.RSA_NAMES[0]

    @property
    def public(self) -> Path:
        return self.folder / keyfiles.RSA_NAMES[1]

    @property
    def sign_private(self) -> Path:
        return self.folder / keyfiles.SIGNING_NAMES[0]

    @property
    def sign_public(self) -> Path:
        return self.folder / keyfiles.SIGNING_NAMES[1]


def make_keys(folder: Path) -> KeyPair:
    keyfiles.write_pair(keyfiles.generate_rsa(2048), folder, keyfiles.RSA_NAMES, PASSPHRASE.encode())
    keyfiles.write_pair(keyfiles.generate_signing(), folder, keyfiles.SIGNING_NAMES, PASSPHRASE.encode())
    return KeyPair(folder)


@pytest.fixture(scope="session")
def alice(tmp_path_factory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("alice"))


@pytest.fixture(scope="session")
def bob(tmp_path_factory) -> KeyPair:
    return make_keys(tmp_path_factory.mktemp("bob"))


@pytest.fixture(scope="session")
def _alice_context(alice):
    with context.use(identity=alice.private, recipients=[alice.public], passphrase=PASSPHRASE) as keys:
        keys.identity()  # unlocked once for the whole suite
    return keys


@pytest.fixture
def keys(_alice_context):
    """The process uses Alice's pair."""
    token = context._current.set(_alice_context)
    yield _alice_context
    context._current.reset(token)


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith("TVM_SECRET_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Published models and photos; a user's checkout lacks them."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder of published models is not beside this checkout")
    return folder


_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(["tvm_secret.cli.run", "tvm_secret.cli.encrypt", "preload_compiler"])


@pytest.fixture(scope="session", autouse=True)
def _fork_server():
    """Started here, since it finds `preload_compiler` by PYTHONPATH alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.forkserver.ensure_running()


def _child(work: Callable, argument, folder: Path, environment: dict[str, str], out: str, err: str) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate((os.devnull, out, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.exit(work(argument))


def run_forked(
    work: Callable, argument, folder: Path, environment: dict[str, str], meanwhile: Callable | None = None
) -> subprocess.CompletedProcess:
    """Run `work(argument)`, a module's function, in a process that has imported everything already.

    `meanwhile` is called with the process (`multiprocessing.Process`) while it works.
    """
    with tempfile.TemporaryDirectory() as scratch:
        out, err = f"{scratch}/out", f"{scratch}/err"
        for path in (out, err):
            Path(path).touch()  # there, however early it ends
        process = _server.Process(target=_child, args=(work, argument, folder, environment, out, err))
        process.start()
        if meanwhile:
            meanwhile(process)
        process.join(300)
        return subprocess.CompletedProcess(
            argument, process.exitcode, Path(out).read_text(), Path(err).read_text()
        )


def run_tvmc(arguments: list[str]) -> int:
    from tvm_secret.cli import main

    return main(arguments)


@dataclass(frozen=True)
class Tvmc:
    """Runs the command line in a process of its own, forked from one that has imported everything already.

    Tests of what a user types start `python -m tvm_secret.cli` themselves; the many refusals start here.
    """

    folder: Path
    keys: KeyPair

    def __call__(
        self,
        *arguments,
        check: bool = True,
        env: dict | None = None,
        work: Callable = run_tvmc,
        meanwhile: Callable | None = None,
    ):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TVM_SECRET_")
        }
        environment |= {
            "TVM_SECRET_IDENTITY": str(self.keys.private),
            "TVM_SECRET_RECIPIENTS": str(self.keys.public),
            "TVM_SECRET_PASSPHRASE": PASSPHRASE,
        }
        environment |= env or {}
        environment = {name: value for name, value in environment.items() if value is not None}
        words = [str(argument) for argument in arguments]
        done = run_forked(work, words, self.folder, environment, meanwhile)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def refuses(self, *arguments, match: str, code: int = 1, **options) -> None:
        """The command fails with one clear line, and leaves no file that was not there."""
        before = set(self.folder.rglob("*"))
        done = self(*arguments, check=False, **options)
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if not line.startswith("tvmc: warning")]
        assert done.returncode == code, done
        assert len(errors) == 1, done.stderr
        assert errors[0].startswith("tvmc: error: ")
        assert match in errors[0], errors[0]
        assert set(self.folder.rglob("*")) == before


@pytest.fixture
def tvmc(tmp_path, alice) -> Tvmc:
    return Tvmc(tmp_path, alice)


@pytest.fixture(scope="module")
def made(tmp_path_factory, alice) -> Path:
    """A folder in which Alice has done the whole job once: her model, sealed, its artefact, and inputs."""
    import numpy as np

    import small_model

    folder = tmp_path_factory.mktemp("made")
    tvmc = Tvmc(folder, alice)
    (folder / "model.onnx").write_bytes(small_model.onnx_bytes())
    np.savez(folder / "in.npz", data=small_model.image())
    tvmc("encrypt", "model.onnx", "-o", "model.sealed")
    tvmc("compile", "--target", "llvm", "--model-format", "onnx", "-o", "model.tar", "model.sealed")
    return folder
