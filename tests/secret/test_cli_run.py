"""`tvmc run` and `tvmc decrypt`: sealed inputs and outputs, times and profiles, and what is refused."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest

import small_model
from conftest import Tvmc
from tvm_secret import context, runner, runtime
from tvm_secret.envelope import MAGIC
from tvm_secret.errors import SecretError
from tvm_secret.runtime import GraphModule

PASSPHRASE = "correct horse battery"


@pytest.fixture
def device(made, tmp_path, alice):
    """Alice, in a folder with a link to her artefact."""
    for name in ("model.tar", "model.sealed", "in.npz"):
        (tmp_path / name).symlink_to(made / name)
    return Tvmc(tmp_path, alice)


def wanted() -> np.ndarray:
    return small_model.reference(small_model.onnx_bytes(), small_model.image())


# --- sealed inputs and outputs


def test_the_host_sees_neither_inputs_nor_outputs(made, device, bob):
    """Bob's data, Alice's model: what is on Alice's disk opens for her going in, for Bob coming out."""
    owner = Tvmc(device.folder, bob)
    owner("encrypt", "in.npz", "-o", "in.sealed", "-r", device.keys.public)
    device.refuses(
        "run", "-i", "in.sealed", "-o", "out.sealed", "--seal-outputs", "--print-top", "1", "model.tar",
        match="would show what --seal-outputs hides",
    )  # fmt: skip
    device(
        "run", "--inputs", "in.sealed", "--outputs", "out.sealed", "--seal-outputs", "-r", bob.public,
        "--sign-key", device.keys.sign_private, "--print-time", "model.tar",
    )  # fmt: skip
    assert (device.folder / "out.sealed").read_bytes().startswith(MAGIC)
    (described,) = json.loads(owner("inspect", "--json", "out.sealed").stdout).values()
    assert described["content"] == "outputs"
    device.refuses("decrypt", "out.sealed", "-o", "out.npz", match="wrong key, or not among its recipients")
    owner.refuses(
        "decrypt", "out.sealed", "-o", "out.npz", "--signer", bob.sign_public, match="not among the trusted"
    )
    owner("decrypt", "out.sealed", "-o", "out.npz", "--signer", device.keys.sign_public)
    with np.load(device.folder / "out.npz") as outputs:
        np.testing.assert_allclose(outputs["output_0"], wanted(), rtol=0, atol=1e-4)
    assert (device.folder / "out.npz").stat().st_mode & 0o077 == 0
    with context.use(identity=bob.private, passphrase=PASSPHRASE):
        assert list(runner.load_outputs(device.folder / "out.sealed")) == ["output_0"]


def test_outputs_are_sealed_to_the_default_recipients(device):
    device(
        "run", "-i", "in.npz", "-o", "out.sealed", "--seal-outputs", "--suite", "cobblestone-256", "model.tar"
    )
    (described,) = json.loads(device("inspect", "--json", "out.sealed").stdout).values()
    assert described["suite"] == "cobblestone-256"
    device("decrypt", "out.sealed", "-o", "out.npz")


def test_decrypt_is_for_data_alone(device):
    device("encrypt", "in.npz", "-o", "in.sealed")
    device("decrypt", "in.sealed", "-o", "again.npz")
    assert (device.folder / "again.npz").read_bytes() == (device.folder / "in.npz").read_bytes()
    device.refuses(
        "decrypt", "model.sealed", "-o", "x", match="holds model/onnx, which is opened in memory only"
    )
    device.refuses(
        "decrypt", "model.tar", "-o", "x", match="holds an artefact, which is opened in memory only"
    )
    device.refuses("decrypt", "in.npz", "-o", "x", match="not a sealed file")
    device("encrypt", "in.npz", "-o", "raw", "--layout", "raw")
    device.refuses("decrypt", "raw", "-o", "x", match="not a sealed file")
    device.refuses("decrypt", "in.sealed", "-o", "no/such/x", match="No such file")


def test_sealing_options_that_would_do_nothing(device, bob):
    device.refuses("run", "--seal-outputs", "model.tar", match="-o/--outputs names, and there is none")
    for option in (
        ["-r", bob.public],
        ["--sign-key", device.keys.sign_private],
        ["--suite", "cobblestone-256"],
    ):
        device.refuses("run", "-o", "out.npz", *option, "model.tar", match="give --seal-outputs too")


# --- times and profiles


def test_times_in_upstreams_table(device):
    done = device("run", "--print-time", "--repeat", "3", "--number", "2", "model.tar")
    title, heads, figures = done.stdout.splitlines()
    assert title == "Execution time summary:"
    assert re.split(r"\s{2,}", heads.strip()) == [
        "mean (ms)",
        "median (ms)",
        "max (ms)",
        "min (ms)",
        "std (ms)",
    ]
    mean, median, most, least, _ = map(float, figures.split())
    assert least <= median <= most
    assert least <= mean <= most
    assert most > 0


@pytest.mark.parametrize(
    "option", [["--repeat", "9"], ["--number", "9"], ["--end-to-end"]], ids=lambda o: o[0]
)
def test_timing_options_alone_warn(device, option):
    assert f"{option[0]} times nothing without --print-time" in device("run", *option, "model.tar").stderr


def test_profile_is_a_table_of_operators(device):
    table = device("run", "-i", "in.npz", "--profile", "model.tar").stdout
    rows = re.findall(r"^\s*(\S+)\s+(\d+)\s+([\d.]+)\s+([\d.]+)%", table, re.M)
    *operators, total = rows
    assert total[0] == "all"
    assert "(runtime)" in [name for name, *_ in operators]
    assert len(operators) > 2
    assert sum(int(calls) for _, calls, *_ in operators) == int(total[1])
    assert sum(float(took) for *_, took, _ in operators) == pytest.approx(float(total[2]), abs=1e-3)
    assert [float(took) for *_, took, _ in operators] == sorted(
        (float(r[2]) for r in operators), reverse=True
    )


def test_a_profile_counts_each_moment_once(monkeypatch):
    """`loop` runs from 1 to 9 and calls `step` twice, for 2 and 1 seconds of its 8."""
    moments = iter([1.0, 2.0, 4.0, 6.0, 7.0, 9.0])
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: next(moments))
    times = runtime._CallTimes()
    for name, before in (
        ("loop", True), ("step", True), ("step", False), ("step", True), ("step", False), ("loop", False),
    ):  # fmt: skip
        times(None, name, before, None)
    assert {name: (o.calls, o.seconds) for name, o in times.operators.items()} == {
        "loop": (1, 5.0),
        "step": (2, 3.0),
    }


def test_profiling_changes_no_output(made, alice):
    with (
        context.use(identity=alice.private, passphrase=PASSPHRASE),
        GraphModule(made / "model.tar") as module,
    ):
        module.run(data=small_model.image())
        before = module.get_output(0)
        operators = module.profile()
        module.run()
        np.testing.assert_array_equal(module.get_output(0), before)
        assert all(operator.seconds > 0 and operator.calls > 0 for operator in operators)
        assert not [operator.name for operator in operators if operator.name.startswith("vm.")]


# --- inputs


def test_fill_modes(made, alice):
    with context.use(identity=alice.private, passphrase=PASSPHRASE):
        package = runner.TVMCPackage(made / "model.tar")
        for mode, image in (("zeros", np.zeros), ("ones", np.ones)):
            result = runner.run_module(package, fill_mode=mode, timed=False)
            expected = small_model.reference(small_model.onnx_bytes(), image(small_model.SHAPE, "float32"))
            np.testing.assert_allclose(result.get_output("output_0"), expected, rtol=0, atol=1e-4)
        with pytest.raises(SecretError, match="unknown fill mode 'twos'"):
            runner.run_module(package, fill_mode="twos")
        with pytest.raises(SecretError, match="there is no output 'scores'; there are output_0"):
            result.get_output("scores")
        with pytest.raises(SecretError, match="not timed"):
            result.format_times()


def test_names_that_are_paths_survive_the_npz(tmp_path):
    names = ["serving/default/image:0", "/image", "../image", "x.npy", "two words", "x:1"]
    np.savez(tmp_path / "in.npz", **{name: np.full(2, number) for number, name in enumerate(names)})
    loaded = runner.load_inputs(tmp_path / "in.npz")
    assert {name: array[0] for name, array in loaded.items()} == {name: n for n, name in enumerate(names)}
    assert [path.name for path in tmp_path.iterdir()] == ["in.npz"]


def test_the_top_of_unsigned_integers():
    result = runner.TVMCResult({"output_0": np.array([[3, 0, 200, 7]], "uint8")})
    assert runner.get_top_results(result, 3).tolist() == [[2, 3, 0], [200, 7, 3]]


# --- what upstream could do


@pytest.mark.parametrize(
    ("option", "match"),
    [
        (["--device", "cuda"], "the device (cuda) is refused: artefacts are compiled for the CPU"),
        (["--device", "micro"], "the device (micro) is refused"),
        (["--rpc-tracker", "host:9090"], "an RPC tracker or server (host:9090) is refused"),
        (["--rpc-key", "board"], "an RPC key (board) is refused"),
        (["--project-option", "a=b"], "microTVM is gone"),
    ],
)
def test_retired_options_of_run(device, option, match):
    device.refuses("run", *option, "model.tar", match=match)


def test_retired_parameters_of_run(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        package = runner.TVMCPackage(made / "model.tar")
        for options in ({"device": "cuda"}, {"hostname": "there"}, {"rpc_key": "k"}, {"options": {"a": 1}}):
            with pytest.raises(SecretError, match="is refused"):
                runner.run_module(package, **options)
        with pytest.raises(SecretError, match="microTVM is gone"):
            runner.TVMCPackage(made / "model.tar", project_dir="project")
        with pytest.raises(SecretError, match="takes a TVMCPackage"):
            runner.run_module(made / "model.tar")
