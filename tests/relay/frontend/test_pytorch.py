"""PyTorch archives against PyTorch: real architectures, what an archive may hold, what is refused."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from compiled import Compiled, assert_agrees, inputs_of
from torch import nn

from tvm import relax
from tvm.relay.frontend.pytorch import from_pytorch, import_pytorch
from tvm_secret.errors import ModelError
from zoo import torch_models
from zoo.torch_export import pt2_bytes, torchscript_bytes


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Small(nn.Module):
    """Two inputs, two outputs, a buffer, a constant, and a batch norm whose statistics matter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 20)
        self.register_buffer("offset", torch.randn(32, 1, 1))
        self.bias = torch.randn(20)

    def forward(self, image, scale):
        features = torch.relu(self.norm(self.conv(image))) + self.offset
        return self.head(features.mean((2, 3))) + self.bias, scale * 2


def small() -> nn.Module:
    model = torch_models.build(Small)
    model.norm.running_mean.normal_(0, 1)
    return model


def small_inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return normal(batch, 3, 8, 8), normal(batch, seed=1)


def check(imported, model: nn.Module, *inputs: torch.Tensor) -> None:
    """The imported model gives what `model` gives."""
    relax.analysis.well_formed(imported.module)
    expected = model(*inputs)
    outputs = Compiled(imported, upstream=True)(*(value.numpy() for value in inputs))
    for actual, wanted in zip(outputs, expected if isinstance(expected, tuple) else [expected], strict=True):
        assert_agrees(actual, wanted.detach().numpy())


# Real architectures


def check_classifier(imported, model: nn.Module, *batches: int) -> None:
    network = Compiled(imported)
    for batch in batches:
        image = normal(batch, 3, 32, 32, seed=batch)
        actual, expected = network(image.numpy())[0], model(image).numpy()
        assert_agrees(actual, expected)
        np.testing.assert_array_equal(np.argsort(-actual)[:, :5], np.argsort(-expected)[:, :5])


def test_torchscript_of_resnet():
    model = torch_models.resnet18()
    archive = torchscript_bytes(model, [normal(1, 3, 32, 32)])
    check_classifier(import_pytorch(archive, {"image": (1, 3, 32, 32)}), model, 1)


def test_pt2_of_mobilenet_takes_any_batch():
    model = torch_models.mobilenet_v2()
    archive = pt2_bytes(model, [normal(2, 3, 32, 32)], dynamic_batch=True)
    check_classifier(import_pytorch(archive), model, 1, 3)


def test_scripted_vision_transformer_takes_any_batch():
    model = torch_models.vision_transformer()
    archive = torchscript_bytes(model, [], script=True)
    check_classifier(import_pytorch(archive, {"image": ("n", 3, 32, 32)}), model, 1, 3)


def test_pt2_of_a_bidirectional_lstm():
    model = torch_models.lstm_classifier()
    tokens = torch.randint(0, 100, (3, 4), generator=torch.Generator().manual_seed(0))
    check(import_pytorch(pt2_bytes(model, [tokens])), model, tokens)


def test_integer_inputs_of_torchscript():
    model = nn.Embedding(30, 4)
    tokens = torch.tensor([[1, 29, 0]])
    archive = torchscript_bytes(model, [tokens])
    check(import_pytorch(archive, {"tokens": (1, 3)}, "int64"), model, tokens)
    check(import_pytorch(archive, {"tokens": (1, 3)}, {"tokens": "int64"}), model, tokens)


# Inputs, shapes and names


def test_pt2_takes_any_batch_or_the_one_it_is_given():
    model = small()
    archive = pt2_bytes(model, small_inputs(), dynamic_batch=True)
    imported = import_pytorch(archive)
    shapes = inputs_of(imported)
    assert list(shapes) == ["image", "scale"]
    assert shapes["image"][1:] == [3, 8, 8]
    assert isinstance(shapes["image"][0], str)
    assert shapes["scale"] == shapes["image"][:1]
    assert imported.output_names == ["output_0", "output_1"]
    compiled = Compiled(imported, upstream=True)
    for batch in (1, 5):
        inputs = small_inputs(batch)
        for actual, expected in zip(
            compiled(*(value.numpy() for value in inputs)), model(*inputs), strict=True
        ):
            assert_agrees(actual, expected.numpy())

    fixed = import_pytorch(archive, {"scale": (4,), "image": (4, 3, 8, 8)})
    assert inputs_of(fixed) == {"image": [4, 3, 8, 8], "scale": [4]}
    renamed = import_pytorch(archive, {"a/b:0": ("n", 3, 8, 8), "second": ("n",)})
    assert inputs_of(renamed) == {"a/b:0": ["n", 3, 8, 8], "second": ["n"]}


@pytest.mark.parametrize("script", [False, True], ids=["traced", "scripted"])
def test_torchscript_takes_the_shapes_it_is_given(script):
    model = small()
    archive = torchscript_bytes(model, small_inputs(), script)
    fixed = import_pytorch(archive, {"scale": (3,), "image": (3, 3, 8, 8)})
    assert inputs_of(fixed) == {"image": [3, 3, 8, 8], "scale": [3]}
    check(fixed, model, *small_inputs(3))
    anywhere = import_pytorch(archive, {"first:0": ("batch", 3, 8, 8), "second": ("batch",)})
    assert inputs_of(anywhere) == {"first:0": ["batch", 3, 8, 8], "second": ["batch"]}
    check(anywhere, model, *small_inputs(1))


def test_frozen_torchscript():
    model = small()
    file = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.script(model)), file)
    check(import_pytorch(file.getvalue(), {"image": (2, 3, 8, 8), "scale": (2,)}), model, *small_inputs())


def test_arguments_that_export_took_as_constants_are_no_inputs():
    class Flagged(nn.Module):
        def forward(self, x, double, named):
            return {"total": x * (2 if double else 1) + named["y"]}

    file = io.BytesIO()
    arguments = (normal(2, 3), True, {"y": normal(3, seed=1)})
    torch.export.save(torch.export.export(Flagged(), arguments), file)
    imported = import_pytorch(file.getvalue())
    assert len(inputs_of(imported)) == 2
    actual = Compiled(imported, upstream=True)(arguments[0].numpy(), arguments[2]["y"].numpy())[0]
    assert_agrees(actual, (arguments[0] * 2 + arguments[2]["y"]).numpy())


def test_weights_stay_apart_under_their_own_names():
    archive = pt2_bytes(small(), small_inputs())
    imported = import_pytorch(archive)
    expected = {
        "conv.weight",
        "conv.bias",
        "norm.weight",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
    }
    assert set(imported.params) == expected | {"head.weight", "head.bias", "offset", "bias"}
    assert all(np.shares_memory(w, np.frombuffer(archive, "uint8")) for w in imported.params.values())
    friendly = import_pytorch(archive, use_parser_friendly_name=True)
    assert "norm_running_mean" in friendly.params


def test_negative_index():
    class Last(nn.Module):
        def forward(self, x):
            return x[:, -1]

    check(import_pytorch(pt2_bytes(Last(), [normal(2, 5)])), Last(), normal(2, 5))


def test_custom_operator_converter():
    class Determinant(nn.Module):
        def forward(self, x):
            return torch.linalg.inv_ex(x).inverse

    archive = pt2_bytes(Determinant(), [normal(2, 2)])

    def convert(node, importer):
        x = importer.env[node.args[0]]
        return importer.block_builder.emit(relax.Tuple([relax.op.negative(x), x]))

    imported = import_pytorch(archive, custom_convert_map={"linalg_inv_ex.default": convert})
    x = normal(2, 2).numpy()
    assert_agrees(Compiled(imported, upstream=True)(x)[0], -x)


# What is refused


def refused(model: bytes, match: str, *arguments, **options) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        import_pytorch(model, *arguments, **options)
    assert len(str(caught.value).splitlines()) == 1


def rewritten(archive: bytes, change) -> bytes:
    """`archive` with each member put through `change(name, content)`."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def with_program(archive: bytes, change) -> bytes:
    """A PT2 archive whose program's JSON went through `change`."""

    def edit(name: str, content: bytes) -> bytes:
        if "/models/" not in name:
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return rewritten(archive, edit)


class Bomb:
    """Unpickling it would leave a trace."""

    exploded = False

    @classmethod
    def explode(cls):
        cls.exploded = True

    def __reduce__(self):
        return (Bomb.explode, ())


@pytest.fixture(autouse=True)
def nothing_explodes():
    yield
    assert not Bomb.exploded


@pytest.mark.parametrize("value", [Bomb(), {"weight": torch.zeros(3)}], ids=["module", "state dict"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickles_are_refused_with_the_remedy(value, zipped):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    refused(file.getvalue(), r"pickle.*torch\.export\.save")
    refused(pickle.dumps(value), r"pickle.*torch\.export\.save")


def test_pickled_parts_of_a_pt2_archive_are_never_opened():
    archive = pt2_bytes(small(), small_inputs())
    bomb = pickle.dumps(Bomb())
    spiked = rewritten(archive, lambda name, content: bomb if "sample_inputs" in name else content)
    assert inputs_of(import_pytorch(spiked)) == {"image": [2, 3, 8, 8], "scale": [2]}

    def pickled_weight(name: str, content: bytes) -> bytes:
        if not name.endswith("weights_config.json"):
            return bomb if name.endswith("weight_0") else content
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    refused(rewritten(archive, pickled_weight), "stored as a pickle")


def test_code_in_a_pt2_archive_is_never_run():
    archive = pt2_bytes(small(), small_inputs(), dynamic_batch=True)

    def operator(name: str):
        return lambda program: program["graph_module"]["graph"]["nodes"][0].update(target=name)

    for name in (
        "torch.os.system",
        "torch.hub.load",
        "torch.ops.aten.save",
        "_operator.methodcaller",
        "builtins.eval",
    ):
        refused(with_program(archive, operator(name)), "operator .* is not supported")

    def expression(text: str):
        def change(program):
            values = program["graph_module"]["graph"]["tensor_values"]
            values["image"]["sizes"][0]["as_expr"]["expr_str"] = text

        return change

    for text in (
        "__import__('os').getpid()",
        "Symbol('s0').__class__",
        "exec('1')",
        "[x for x in (1,)]",
        "S('1+1')",
        "(",
    ):
        refused(with_program(archive, expression(text)), "holds a shape")

    def guard(program):
        program["guards_code"] = ["raise SystemExit"]

    assert import_pytorch(with_program(archive, guard)).params


def test_compiled_and_ambiguous_archives_are_refused():
    archive = pt2_bytes(small(), small_inputs())
    root = zipfile.ZipFile(io.BytesIO(archive)).namelist()[0].partition("/")[0]
    for name, match in (("data/aotinductor/model/x.so", "AOTInductor"), ("models/other.json", "2 programs")):
        file = io.BytesIO(archive)
        with zipfile.ZipFile(file, "a") as extended:
            extended.writestr(f"{root}/{name}", b"{}")
        refused(file.getvalue(), match)


def test_torchscript_that_runs_on_loading_or_touches_files_is_refused():
    archive = torchscript_bytes(small(), small_inputs(), script=True)
    shapes = {"image": (2, 3, 8, 8), "scale": (2,)}
    for line in (
        b"  def __setstate__(self, state: int) -> None:\n    pass\n",
        b"    _0 = torch.save(scale, 'x')\n",
    ):
        unsafe = rewritten(
            archive, lambda name, code, line=line: code + line if name.endswith(".py") else code
        )
        refused(unsafe, "refused as unsafe", shapes)


def test_torchscript_needs_shapes():
    archive = torchscript_bytes(small(), small_inputs())
    refused(archive, "no input shapes: give those of its inputs 'image', 'scale'")
    refused(archive, "1 input shapes for the 2 inputs 'image', 'scale'", {"image": (2, 3, 8, 8)})
    refused(archive, "no dtype is called 'float31'", {"image": (2, 3, 8, 8), "scale": (2,)}, "float31")


def test_shapes_that_do_not_fit_are_named():
    archive = pt2_bytes(small(), small_inputs())
    refused(
        archive,
        "dimension 0 of input 'image' is 2 in the model, not 4",
        {"image": (4, 3, 8, 8), "scale": (4,)},
    )
    refused(
        archive,
        "dimension 0 of input 'image' is 2 in the model, not n",
        {"image": ("n", 3, 8, 8), "scale": ("n",)},
    )
    refused(archive, "'image' has 4 dimensions, not 1", {"image": (2,), "scale": (2,)})


def test_symbolic_dimension_that_the_model_fixes_is_named():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, 6)

    archive = torchscript_bytes(Fixed(), [normal(2, 6)], script=True)
    refused(archive, r"cannot be traced for 'x' of shape \[rows, 6\]", {"x": ("rows", 6)})


def test_unsupported_operators_are_named():
    class Unsupported(nn.Module):
        def forward(self, x):
            return torch.linalg.inv_ex(x).inverse

    refused(pt2_bytes(Unsupported(), [normal(2, 2)]), "operators not supported: linalg_inv_ex.default")
    refused(torchscript_bytes(Unsupported(), [normal(2, 2)]), "linalg_inv_ex.default", {"x": (2, 2)})


def test_options_that_cannot_be_honoured_are_refused():
    with pytest.raises(ModelError, match="quantised weights"):
        from_pytorch(b"", b"", keep_quantized_weight=True)


def test_malformed_bytes_are_refused():
    archive = pt2_bytes(small(), small_inputs())
    for malformed in (
        b"",
        b"PK\x03\x04",
        np.random.default_rng(0).bytes(1000),
        archive[:-100],
        archive[: len(archive) // 2],
    ):
        refused(malformed, "not a PyTorch archive")
    flipped = bytearray(archive)
    flipped[archive.index(b'"graph_module"') + 5] ^= 1
    refused(bytes(flipped), "cannot be read")
    scripted = torchscript_bytes(small(), small_inputs())
    flipped = bytearray(scripted)
    flipped[scripted.index(b"PK\x03\x04", 100) + 1] ^= 1
    refused(bytes(flipped), "cannot be read", {"image": (2, 3, 8, 8), "scale": (2,)})
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    refused(empty.getvalue(), "not a PyTorch archive")


def test_importing_writes_no_file(tmp_path):
    """A child process in empty folders imports both archives, and every file opened for writing is told."""
    (tmp_path / "a.pt2").write_bytes(pt2_bytes(small(), small_inputs()))
    (tmp_path / "a.pt").write_bytes(torchscript_bytes(small(), small_inputs()))
    code = (
        "import os, sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+'):\n"
        "        print(arguments[0])\n"
        "from tvm.relay.frontend.pytorch import import_pytorch\n"
        "models = [open(name, 'rb').read() for name in ('a.pt2', 'a.pt')]\n"
        "import torch._export.converter, tvm.relax.frontend.torch\n"
        "sys.addaudithook(hook)\n"
        "import_pytorch(models[0])\n"
        "import_pytorch(models[1], {'image': (2, 3, 8, 8), 'scale': (2,)})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True
    )
    assert [line for line in done.stdout.splitlines() if line != "/dev/null"] == []
