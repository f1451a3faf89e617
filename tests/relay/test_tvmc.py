"""`tvm.driver.tvmc`: the Python interface that tvmc had, and every option of `tvmc compile`."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest

import small_model
from tvm.driver import tvmc
from tvm_secret import artefact, seal
from tvm_secret.envelope import MAGIC
from tvm_secret.errors import SecretError

pytestmark = pytest.mark.usefixtures("keys")


@pytest.fixture(scope="module")
def sealed(tmp_path_factory, alice):
    path = tmp_path_factory.mktemp("model") / "model.onnx.sealed"
    model = small_model.onnx_bytes()
    path.write_bytes(seal(model, content_type="model/onnx", recipients=[alice.public]))
    return path


@pytest.fixture
def model(sealed):
    return tvmc.load(sealed)


def run(package) -> tvmc.TVMCResult:
    return tvmc.run(package, device="cpu", inputs={"data": small_model.image()}, repeat=2, number=1)


def test_load_compile_run(sealed, tmp_path):
    model = tvmc.load(str(sealed), model_format="onnx")
    package = tvmc.compile(model, target="llvm", package_path=tmp_path / "model.tar")
    wanted = small_model.reference(small_model.onnx_bytes(), small_model.image())
    for each in (package, tvmc.TVMCPackage(str(tmp_path / "model.tar")), tvmc.compile(model, "llvm")):
        result = run(each)
        np.testing.assert_allclose(result.get_output("output_0"), wanted, rtol=0, atol=1e-4)
    assert list(result.outputs) == ["output_0"]
    assert len(result.times.results) == 2
    assert str(result) == f"{result.format_times()}\nOutput Names:\n ['output_0']"
    result.save(tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_array_equal(outputs["output_0"], result.outputs["output_0"])


def test_only_results_are_plain(model):
    assert model.mod.startswith(MAGIC)
    assert model.params.startswith(MAGIC)
    package = tvmc.compile(model, "llvm")
    assert all(part.startswith(MAGIC) for part in package.artefact)
    for holder in (model, package):
        assert "conv" not in repr(holder) + repr(vars(holder))
    text = io.StringIO()
    model.summary(text)
    assert re.findall(r"^(\S+): [\d,]+ bytes, sealed to \w+$", text.getvalue(), re.M) == [
        "ir-module",
        "params",
    ]


def test_an_imported_model_is_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.tar")
    again = tvmc.TVMCModel(model_path=tmp_path / "model.tar")
    assert (again.mod, again.params) == (model.mod, model.params)
    tvmc.TVMCModel(model_path=tmp_path / "model.tar").save(tmp_path / "copy.tar")
    data = (tmp_path / "copy.tar").read_bytes()
    for damaged, match in (
        (data[:-1024], "cut short"),
        (data.replace(b"model.params", b"model.paramz"), "altered at its member model.params"),
        (b"", "it is empty"),
    ):
        (tmp_path / "bad.tar").write_bytes(damaged)
        with pytest.raises(SecretError, match=match):
            tvmc.TVMCModel(model_path=tmp_path / "bad.tar")
    other = tvmc.TVMCModel(
        model.mod, tvmc.load(seal(small_model.onnx_bytes(1), content_type="model/onnx")).params
    )
    with pytest.raises(SecretError, match="come from different imports"):
        tvmc.compile(other, "llvm")


def test_load_takes_bytes_and_shapes(sealed, alice):
    plain = small_model.onnx_bytes(batch="n")
    flexible = seal(plain, content_type="model/onnx", recipients=[alice.public])
    package = tvmc.compile(tvmc.load(flexible, shape_dict={"data": [2, 3, 32, 32]}), "llvm")
    result = tvmc.run(package, inputs={"data": small_model.image(batch=2)}, repeat=1, number=1)
    assert result.get_output("output_0").shape == (2, 10)


def test_wrong_arguments(sealed, model):
    for make, match in (
        (lambda: tvmc.load(small_model.onnx_bytes()), "not a sealed file"),
        (lambda: tvmc.load(small_model.onnx_bytes(), "onnx"), "tvmc encrypt"),
        (lambda: tvmc.load(sealed, "caffe"), "unknown model format 'caffe'"),
        (lambda: tvmc.load(sealed, "keras"), "holds model/onnx, where model/keras is wanted"),
        (lambda: tvmc.compile(str(sealed), "llvm"), "takes a TVMCModel"),
        (lambda: tvmc.run(str(sealed)), "takes a TVMCPackage"),
        (lambda: tvmc.TVMCModel(model.mod, None), "a sealed module and its sealed params"),
    ):
        with pytest.raises(tvmc.TVMCException, match=match):
            make()


# --- passes


def operators(package) -> set[str]:
    result = tvmc.run(package, inputs={"data": small_model.image()}, profile=True, timed=False)
    return {operator.name for operator in result.operators} - {"(runtime)"}


def test_passes_are_left_out(model):
    fused = operators(tvmc.compile(model, "llvm"))
    plain = tvmc.compile(model, "llvm", opt_level=0)
    assert len(operators(plain)) > len(fused)
    wanted = small_model.reference(small_model.onnx_bytes(), small_model.image())
    np.testing.assert_allclose(run(plain).get_output("output_0"), wanted, rtol=0, atol=1e-4)
    for disabled in ("FuseOps, FuseTIR", ["FuseOps", "FuseTIR"]):
        assert len(operators(tvmc.compile(model, "llvm", disabled_pass=disabled))) > len(fused)


def test_pass_options_reach_the_passes(model, tmp_path):
    code = {}
    for value in ("true", "0"):
        with pytest.warns(UserWarning, match="holds the model's code in clear"):
            tvmc.compile(
                model,
                "llvm -mcpu=x86-64-v3",
                pass_context_configs=[f"tirx.disable_assert={value}"],
                dump_code="ll",
                allow_plaintext_dump=tmp_path / "ll",
            )
        code[value] = (tmp_path / "ll").read_text()
    assert len(code["true"]) < len(code["0"])


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ("tirx.disable_vectorize", "not of the form name=value"),
        ("tir.disable_vectorize=1", "did you mean tirx.disable_vectorize"),
        ("relay.backend.use_auto_scheduler=0", "TVM's passes have no option"),
        ("tirx.disable_vectorize=perhaps", "takes true or false, not 'perhaps'"),
        ("relax.FuseOps.max_depth=deep", "takes a whole number, not 'deep'"),
        ("tirx.add_lower_pass=1,x", "cannot be given as text"),
    ],
)
def test_wrong_pass_options(model, setting, match):
    with pytest.raises(SecretError, match=re.escape(match)):
        tvmc.compile(model, "llvm", pass_context_configs=[setting])


def test_wrong_passes(model):
    with pytest.raises(SecretError, match="TVM has no pass 'AlterOpLayout'"):
        tvmc.compile(model, "llvm", disabled_pass="FuseOps,AlterOpLayout")
    with pytest.raises(SecretError, match=r"the compiler fails \(\w+\) with the options of passes given"):
        tvmc.compile(model, "llvm", disabled_pass="LegalizeOps")


# --- targets


def target_of(package) -> str:
    return artefact.open_artefact(package.artefact).interface.target


def test_spellings_of_a_target(model, tmp_path):
    (tmp_path / "target.json").write_text('{"kind": "llvm", "mcpu": "x86-64-v2"}')
    for target, options in (
        ("llvm -mcpu=x86-64-v2", {}),
        ('{"kind": "llvm", "mcpu": "x86-64-v2"}', {}),
        (str(tmp_path / "target.json"), {}),
        ("llvm", {"mcpu": "x86-64-v2"}),
        ('{"kind": "llvm"}', {"mcpu": "x86-64-v2"}),
    ):
        package = tvmc.compile(model, target, additional_target_options={"llvm": options})
        assert target_of(package) == "llvm -mcpu=x86-64-v2"
    with pytest.raises(SecretError, match="the target 'cuda' is unknown"):
        tvmc.compile(model, "llvm", additional_target_options={"cuda": {"arch": "sm_80"}})


# --- the command line


@pytest.fixture
def cli(tvmc, sealed):
    """`tvmc` in a folder with the sealed model in it."""
    (tvmc.folder / "model.sealed").symlink_to(sealed)
    return tvmc


def test_every_option_of_the_command_line_arrives(cli):
    done = cli(
        "compile", "--target", "llvm", "--target-llvm-mcpu", "x86-64-v2", "--output", "x.tar", "-f", "tar",
        "-O", "2", "--pass-config", "tirx.disable_assert=1", "--pass-config", "tirx.noalias=true",
        "--disabled-pass", "FuseOps,FuseTIR", "--dump-code", "relax, asm", "--allow-plaintext-dump", "dump",
        "--input-shapes", "data:[1,3,32,32]", "-v", "model.sealed",
    )  # fmt: skip
    stages = re.findall(r"^tvmc: (\w+.*)$", done.stderr, re.M)
    assert [stage for stage in stages if not stage.startswith("warning")] == [
        "importing", "opening", "optimising", "generating code", "sealing",
    ]  # fmt: skip
    dump = (cli.folder / "dump").read_text()
    assert dump.startswith("; relax\n")
    assert "R.nn.conv2d" in dump
    assert "\n; asm\n" in dump
    assert "\tret" in dump
    assert (cli.folder / "dump").stat().st_mode & 0o077 == 0
    assert "fused" not in cli("run", "--profile", "x.tar").stdout
    with_fusion = cli("compile", "-o", "y.tar", "model.sealed")
    assert with_fusion.stderr == ""
    assert "fused" in cli("run", "--profile", "y.tar").stdout


def test_a_dump_needs_leave(cli):
    cli.refuses(
        "compile", "--dump-code", "asm,ll", "-o", "x.tar", "model.sealed",
        match="a dump of the model's code (asm, ll) is refused: it would lie plain on the disk",
    )  # fmt: skip
    cli.refuses(
        "compile", "--allow-plaintext-dump", "x", "-o", "x.tar", "model.sealed", match="give --dump-code too"
    )
    cli.refuses(
        "compile", "--dump-code", "c", "--allow-plaintext-dump", "x", "-o", "x.tar", "model.sealed",
        match="unknown format 'c' of a dump; there are relax, ll, asm",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "match"),
    [
        (["-f", "so"], "the output format (so) is refused"),
        (["--output-format", "mlf"], "the output format (mlf) is refused"),
        (["--executor", "aot"], "the executor (aot) is refused"),
        (["--executor-aot-unpacked-api", "1"], "Relay's executors are gone"),
        (["--runtime", "crt"], "the runtime (crt) is refused"),
        (["--runtime-crt-system-lib", "1"], "Relay's runtimes are gone"),
        (["--pass-config", "tir.disable_vectorize=1"], "did you mean tirx.disable_vectorize"),
        (["--disabled-pass", "AlterOpLayout"], "TVM has no pass 'AlterOpLayout'"),
        (["--target", "missing.json"], "missing.json: No such file"),
    ],
)
def test_refused_options_of_compile(cli, option, match):
    cli.refuses("compile", *option, "-o", "x.tar", "model.sealed", match=match)


def test_ignored_options_of_compile_warn(cli):
    options = {
        "--cross-compiler": "aarch64-linux-gnu-gcc",
        "--cross-compiler-options": "-mfpu=neon",
        "--desired-layout": "NCHW",
        "--executor": "graph",
        "--module-name": "net",
        "--runtime": "cpp",
        "--tuning-records": "records.json",
    }
    words = [f"{name}={value}" for name, value in options.items()]
    done = cli("compile", *words, "-o", "x.tar", "model.sealed")
    warnings = done.stderr.splitlines()
    assert len(warnings) == len(options)
    for value in options.values():
        assert sum(f"({value}) has no effect: " in line for line in warnings) == 1


def test_a_negative_size_is_any_size(cli, alice):
    (cli.folder / "m.onnx").write_bytes(small_model.onnx_bytes(batch="n"))
    cli("encrypt", "m.onnx")
    cli("compile", "--input-shapes", "data:[-1,3,32,32]", "-o", "m.tar", "m.onnx.sealed")
    for batch in (1, 3):
        np.savez(cli.folder / "in.npz", data=small_model.image(batch=batch))
        cli("run", "-i", "in.npz", "-o", "out.npz", "m.tar")
        with np.load(cli.folder / "out.npz") as outputs:
            assert outputs["output_0"].shape == (batch, 10)
