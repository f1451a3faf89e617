"""The command line as real processes: the main job, and one clear line for everything that is refused."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

import small_model
from conftest import PASSPHRASE, ROOT, Tvmc
from tvm_secret.cli import COMMANDS


@pytest.fixture
def files(made, tmp_path):
    """Copies of what `made` holds, to be spoilt."""
    for path in made.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_the_main_job(made, alice, tmp_path):
    done = Tvmc(made, alice)(
        "run", "-i", "in.npz", "-o", tmp_path / "out.npz", "--print-top", "5", "model.tar"
    )
    wanted = small_model.reference(small_model.onnx_bytes(), small_model.image())
    with np.load(tmp_path / "out.npz") as outputs:
        assert list(outputs) == ["output_0"]
        np.testing.assert_allclose(outputs["output_0"], wanted, rtol=0, atol=1e-4)
    top = np.argsort(-wanted[0])[:5]
    numbers = [float(number) for number in re.findall(r"-?[\d.]+(?:e[+-]\d+)?", done.stdout)]
    assert numbers[:5] == top.tolist()
    np.testing.assert_allclose(numbers[5:], wanted[0][top], rtol=1e-4)


def test_the_longer_name_is_the_same_program(made, alice, tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tvm.driver.tvmc",
            "run",
            "-i",
            "in.npz",
            "-o",
            tmp_path / "out.npz",
            "model.tar",
        ],
        cwd=made,
        env=os.environ | {"TVM_SECRET_IDENTITY": str(alice.private), "TVM_SECRET_PASSPHRASE": PASSPHRASE},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.npz").exists()


def test_keys_in_the_current_folder_are_enough(tmp_path, alice):
    """What a user of upstream's tvmc types, with `rsa_keygen.py` before it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TVM_SECRET_")}
    env["TVM_SECRET_PASSPHRASE"] = PASSPHRASE
    (tmp_path / "x.onnx").write_bytes(small_model.onnx_bytes())
    np.savez(tmp_path / "in.npz", data=small_model.image())
    tvmc = [sys.executable, "-m", "tvm_secret.cli"]
    for command in (
        [sys.executable, ROOT / "rsa_keygen.py", "--bits", "2048"],
        [*tvmc, "encrypt", "x.onnx"],
        [*tvmc, *"compile --target llvm --model-format onnx --output x.tar x.onnx.sealed".split()],
        [*tvmc, *"run --inputs in.npz --output out.npz x.tar".split()],
    ):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "x.onnx", "in.npz", "rsa_private_key.bin", "rsa_public_key.pem", "x.onnx.sealed", "x.tar", "out.npz",
    }  # fmt: skip


def test_compile_reads_format_and_shapes(made, alice, tmp_path):
    tvmc = Tvmc(tmp_path, alice)
    (tmp_path / "m.onnx").write_bytes(small_model.onnx_bytes(batch="n"))
    tvmc("encrypt", "m.onnx")
    tvmc("compile", "--input-shapes", "data:[2,3,32,32]", "-o", "m.tar", "m.onnx.sealed")
    np.savez(tmp_path / "in.npz", data=small_model.image(batch=2))
    tvmc("run", "-i", "in.npz", "-o", "out.npz", "m.tar")
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["output_0"].shape == (2, 10)
    np.savez(tmp_path / "in.npz", data=small_model.image(batch=1))
    tvmc.refuses("run", "-i", "in.npz", "m.tar", match="'data' wants shape")


@pytest.mark.parametrize("suite", ["aes-eax", "cobblestone-256"])
@pytest.mark.parametrize("layout", ["sealed", "raw"])
def test_suites_and_layouts(made, alice, tmp_path, suite, layout):
    tvmc = Tvmc(tmp_path, alice)
    tvmc("encrypt", made / "model.onnx", "-o", "m", "--suite", suite, "--layout", layout)
    tvmc("compile", "--model-format", "onnx", "--suite", suite, "-o", "m.tar", "m")
    done = tvmc("inspect", "--json", "m.tar")
    assert {member["suite"] for member in json.loads(done.stdout).values()} == {suite}
    tvmc("run", "--fill-mode", "ones", "m.tar")


def test_three_parties_with_three_pairs(made, alice, bob, tmp_path):
    """Owner Bob signs and seals to compiler host Alice, who signs and seals to device Bob."""
    owner, host, device = Tvmc(tmp_path, bob), Tvmc(tmp_path, alice), Tvmc(tmp_path, bob)
    owner("encrypt", made / "model.onnx", "-o", "m", "-r", alice.public, "--sign-key", bob.sign_private)
    host.refuses("compile", "-o", "m.tar", "m", "--signer", alice.sign_public, match="not among the trusted")
    host(
        "compile", "-o", "m.tar", "m",
        "--signer", bob.sign_public, "-r", bob.public, "--sign-key", alice.sign_private,
    )  # fmt: skip
    device("verify", "m.tar", "--signer", alice.sign_public)
    device("run", "m.tar", "--signer", alice.sign_public)
    device.refuses("run", "m.tar", "--signer", bob.sign_public, match="not among the trusted signers")
    host.refuses("run", "m.tar", match="wrong key, or not among its recipients")
    device("rewrap", "m.tar", "-o", "again.tar", "-r", alice.public)
    host("run", "again.tar", "--signer", alice.sign_public)


def test_an_unsigned_artefact_runs_with_one_warning(made, alice):
    done = Tvmc(made, alice)("run", "--print-time", "--repeat", "3", "--end-to-end", "model.tar")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("tvmc: warning: the artefact is not signed")


def test_signers_without_a_sign_key_still_compile(made, alice, tmp_path):
    """The import's results are signed by nobody configured; the process vouches to itself."""
    tvmc = Tvmc(tmp_path, alice)
    tvmc("encrypt", made / "model.onnx", "-o", "m", "--sign-key", alice.sign_private)
    tvmc("compile", "-o", "m.tar", "m", "--signer", alice.sign_public)
    tvmc.refuses("run", "m.tar", "--signer", alice.sign_public, match="not signed")


# --- refusals


def test_opening_the_wrong_thing(files, alice):
    tvmc = Tvmc(files, alice)
    (files / "empty").write_bytes(b"")
    (files / "folder").mkdir()
    for name, match in {
        "model.onnx": "tvmc encrypt",
        "empty": "it is empty",
        "folder": "Is a directory",
        "missing": "No such file or directory",
        "in.npz": "tvmc encrypt",
        "model.tar": "tvmc encrypt",
    }.items():
        tvmc.refuses("compile", "--model-format", "onnx", "-o", "x.tar", name, match=match)
    for name, match in {
        "model.onnx": "not an artefact",
        "model.sealed": "not an artefact",
        "empty": "it is empty",
        "folder": "Is a directory",
        "missing": "No such file or directory",
    }.items():
        tvmc.refuses("run", "-i", "in.npz", "-o", "out.npz", name, match=match)
    for name, match in {
        "empty": "is empty",
        "folder": "not a SavedModel",
        "missing": "does not exist",
    }.items():
        tvmc.refuses("encrypt", "--model-format", "onnx", "-o", "x", name, match=match)


def test_wrong_keys_and_passphrases(files, alice, bob):
    tvmc = Tvmc(files, alice)
    for command in (["compile", "-o", "x.tar", "model.sealed"], ["run", "-o", "out.npz", "model.tar"]):
        tvmc.refuses(*command, "--identity", bob.private, match="wrong key, or not among its recipients")
        tvmc.refuses(*command, env={"TVM_SECRET_PASSPHRASE": "guess"}, match="passphrase does not open")
        tvmc.refuses(*command, env={"TVM_SECRET_PASSPHRASE": None}, match="a passphrase is needed")
        tvmc.refuses(*command, "--identity", "missing", match="cannot read the private key")
        tvmc.refuses(*command, "--identity", alice.public, match="not a private key")
        tvmc.refuses(*command, env={"TVM_SECRET_IDENTITY": None}, match="tvmc keygen")
    tvmc.refuses("encrypt", "model.onnx", "-o", "x", "-r", "missing.pem", match="cannot read the public key")


def test_damaged_files(files, alice):
    tvmc = Tvmc(files, alice)
    rng = np.random.default_rng(0)
    for name, command in (
        ("model.sealed", ["compile", "-o", "x.tar"]),
        ("model.tar", ["run", "-o", "out.npz"]),
    ):
        good = (files / name).read_bytes()
        flips = [bytearray(good) for _ in range(3)]
        for flip in flips:
            flip[rng.integers(len(good))] ^= 1
        for damaged in (*flips, good[: len(good) // 2], good[:10], good + b"\0"):
            (files / "damaged").write_bytes(damaged)
            tvmc.refuses(*command, "damaged", match="damaged: ")


def test_wrong_content_types(files, alice):
    tvmc = Tvmc(files, alice)
    tvmc("encrypt", "in.npz")
    tvmc.refuses("compile", "-o", "x.tar", "in.npz.sealed", match="not a model")
    tvmc.refuses(
        "compile", "-o", "x.tar", "--model-format", "onnx", "in.npz.sealed",
        match="holds inputs, where model/onnx is wanted",
    )  # fmt: skip
    tvmc.refuses("run", "-i", "model.sealed", "model.tar", match="holds model/onnx, where inputs is wanted")


def test_a_model_of_garbage(files, alice):
    tvmc = Tvmc(files, alice)
    (files / "garbage.onnx").write_bytes(os.urandom(4000))
    tvmc("encrypt", "garbage.onnx")
    tvmc.refuses("compile", "-o", "x.tar", "garbage.onnx.sealed", match="not an ONNX model")


def test_wrong_inputs(files, alice):
    tvmc = Tvmc(files, alice)
    np.savez(files / "name.npz", image=small_model.image())
    np.savez(files / "dtype.npz", data=small_model.image().astype("float64"))
    np.savez(files / "pickle.npz", data=np.array([object()], dtype=object))
    for name, match in {
        "name.npz": "no input 'image'; it has 'data'",
        "dtype.npz": "wants dtype float32, got float64",
        "pickle.npz": "not an .npz of plain arrays",
        "model.onnx": "not an .npz of plain arrays",
        "missing.npz": "No such file",
    }.items():
        tvmc.refuses("run", "-i", name, "-o", "out.npz", "model.tar", match=match)


def test_wrong_targets_and_shapes(files, alice):
    tvmc = Tvmc(files, alice)
    command = ["compile", "-o", "x.tar", "model.sealed"]
    tvmc.refuses(*command, "--target", "cuda", match="'cuda' is unknown")
    tvmc.refuses(*command, "--target", "llvm -mcpu=pentium9", match="pentium9")
    tvmc.refuses(*command, "--input-shapes", "picture:[1,3,32,32]", match="no input 'picture'")
    done = tvmc(*command, "--input-shapes", "data", check=False)
    assert done.returncode == 2
    assert "name:[1,3,224,224]" in done.stderr


def test_an_unwritable_folder(files, alice):
    tvmc = Tvmc(files, alice)
    tvmc.refuses("encrypt", "model.onnx", "-o", "no/such/folder/x", match="no/such/folder/x: No such file")
    tvmc.refuses("run", "-o", "no/such/out.npz", "model.tar", match="no/such/out.npz: No such file")


def test_usage_errors(tvmc):
    for arguments in (
        ["fly"],
        ["run"],
        ["encrypt"],
        ["compile", "--nonsense", "x"],
        ["keygen", "--bits", "x"],
    ):
        done = tvmc(*arguments, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert "did you mean 'compile'?" in tvmc("compil", check=False).stderr
    for retired in ("tune", "micro", "--config=tvmc.json", "-v"):
        tvmc.refuses(retired, "compile", match=f"{retired.partition('=')[0]} is refused: ", code=2)
    tvmc.refuses("keygen", "--bits", "512", match="2048 to 16384")


def test_a_reader_that_goes_away(made, alice):
    command = f"{sys.executable} -m tvm_secret.cli inspect --json model.tar | true"
    done = subprocess.run(command, shell=True, cwd=made, capture_output=True, text=True)
    assert done.stderr == ""


# --- help, inspect, keygen


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(tvmc, command):
    done = tvmc(command, "--help")
    assert "example:\n  tvmc " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 115


def test_examples_work_when_pasted(tmp_path, alice):
    """In the order of the commands, in a folder with a model and its input in it, by keys of the folder."""
    tvmc = Tvmc(tmp_path, alice)
    (tmp_path / "model.onnx").write_bytes(small_model.onnx_bytes())
    np.savez(tmp_path / "in.npz", data=small_model.image())
    no_keys = {"TVM_SECRET_IDENTITY": None, "TVM_SECRET_RECIPIENTS": None}
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    for command in COMMANDS:
        example = tvmc(command, "--help").stdout.partition("example:\n")[2]
        lines = example.strip().splitlines()
        assert lines, command
        for line in lines:
            words = shlex.split(line)
            if "&&" in words:  # the shell's work
                subprocess.run(["bash", "-c", line], cwd=tmp_path, env={"PATH": path}, check=True)
            else:
                assert words[:2] == ["tvmc", command]
                tvmc(*words[1:], env=no_keys)
    with np.load(tmp_path / "out.npz") as outputs:
        assert outputs["output_0"].shape == (1, 10)


def test_overview(tvmc):
    for arguments in ([], ["--help"]):
        text = tvmc(*arguments).stdout
        assert all(command in text for command in COMMANDS)
    assert re.fullmatch(r"tvmc \d+\.\d+\.\d+\S*\n", tvmc("--version").stdout)


def test_inspect_needs_no_key(made, alice):
    tvmc = Tvmc(made, alice)
    nothing = {"TVM_SECRET_IDENTITY": None, "TVM_SECRET_PASSPHRASE": None, "TVM_SECRET_RECIPIENTS": None}
    table = tvmc("inspect", "model.sealed", env=nothing).stdout
    assert "model/onnx" in table
    assert "aes-eax" in table
    members = json.loads(tvmc("inspect", "--json", "model.tar", env=nothing).stdout)
    assert list(members) == ["mod.o", "mod.json", "mod.params"]
    tvmc.refuses("inspect", "model.onnx", env=nothing, match="not a sealed file")
    tvmc.refuses("inspect", "missing", env=nothing, match="No such file")


def test_inspect_prints_this_device(tvmc):
    done = tvmc("inspect", "--device", check=False)
    if done.returncode:
        assert "this machine has no id" in done.stderr
    else:
        assert re.fullmatch(r"[0-9a-f]{32}\n", done.stdout)


def test_passphrase_from_a_file(files, alice):
    (files / "phrase").write_text(f"{PASSPHRASE}\nnot this\n")
    tvmc = Tvmc(files, alice)
    tvmc("run", "model.tar", "--passphrase-file", "phrase", env={"TVM_SECRET_PASSPHRASE": None})


def test_passphrase_typed_on_a_terminal(files, alice):
    controller, terminal = pty.openpty()
    env = os.environ | {"TVM_SECRET_IDENTITY": str(alice.private)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tvm_secret.cli", "run", "-o", "out.npz", "model.tar"],
        cwd=files, env=env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while b"Passphrase of" not in shown:
        shown += os.read(controller, 1000)
    os.write(controller, PASSPHRASE.encode() + b"\n")
    assert process.wait(60) == 0
    assert PASSPHRASE.encode() not in shown
    assert (files / "out.npz").exists()


def test_compile_shows_progress_on_a_terminal(files, alice):
    controller, terminal = pty.openpty()
    env = os.environ | {
        "TVM_SECRET_IDENTITY": str(alice.private),
        "TVM_SECRET_RECIPIENTS": str(alice.public),
        "TVM_SECRET_PASSPHRASE": PASSPHRASE,
        "TERM": "xterm",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tvm_secret.cli", "compile", "-o", "x.tar", "model.sealed"],
        cwd=files, env=env, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while piece := os.read(controller, 1000):
            shown += piece
    except OSError:  # the terminal's other end is closed
        pass
    assert process.wait(60) == 0
    for stage in (b"importing", b"generating code", b"sealing"):
        assert stage in shown


# --- start-up


@pytest.mark.parametrize(
    "command",
    [
        ["keygen", "--out-dir", "new", "--bits", "2048"],
        ["encrypt", "model.onnx", "-o", "again.sealed"],
        ["inspect", "model.tar"],
        ["rewrap", "model.tar", "-o", "again.tar"],
        ["run", "-i", "in.npz", "-o", "out.npz", "model.tar"],
        ["compile", "--help"],
        ["completion", "bash"],
    ],
    ids=lambda command: command[0],
)
def test_no_compiler_and_no_framework_is_imported(files, alice, command):
    """In an environment in which they are all installed."""
    code = (
        "import sys; from tvm_secret.cli import main; code = main(sys.argv[1:]); "
        "print(sorted({name.partition('.')[0] for name in sys.modules})); "
        "print(open('/proc/self/maps').read()); sys.exit(code)"
    )
    env = os.environ | {
        "TVM_SECRET_IDENTITY": str(alice.private),
        "TVM_SECRET_RECIPIENTS": str(alice.public),
        "TVM_SECRET_PASSPHRASE": PASSPHRASE,
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=files, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    modules = next(line for line in done.stdout.splitlines() if line.startswith("['"))
    for name in ("tvm", "torch", "tensorflow", "keras", "onnx", "onnxruntime", "tflite", "scipy"):
        assert f"'{name}'" not in modules
    assert "libtvm_compiler" not in done.stdout
    if command[0] != "run":
        assert "libtvm_runtime" not in done.stdout
