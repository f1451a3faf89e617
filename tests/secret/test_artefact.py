"""The artefact: members that belong together, in a tar that holds nothing else."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile

import numpy as np
import pytest

import small_model
import tvm_secret as secret
from tvm_secret import artefact, context, errors
from tvm_secret.runtime import Execution, GraphModule


@pytest.fixture(scope="module")
def parts(_alice_context):
    from tvm import relay

    token = context._current.set(_alice_context)
    try:
        model = secret.seal(small_model.onnx_bytes(batch="n"), content_type="model/onnx")
        return relay.build(*_in_order(relay.frontend.from_onnx(model)))
    finally:
        context._current.reset(token)


def _in_order(imported):
    module, params = imported
    return module, "llvm", None, None, None, None, None, params


@pytest.fixture
def path(keys, parts, tmp_path):
    artefact.save(parts, tmp_path / "m.tar")
    return tmp_path / "m.tar"


def test_bytes_and_file_run_alike(keys, parts, path):
    data = small_model.image()
    wanted = small_model.reference(small_model.onnx_bytes(batch="n"), data)
    np.testing.assert_allclose(Execution(parts, {"data": data}), wanted, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(Execution(path, {"data": data}), Execution(parts, {"data": data}))


def test_any_tar_reads_it(path):
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["mod.o", "mod.json", "mod.params"]
        for member in tar:
            content = tar.extractfile(member).read()
            assert secret.inspect(content).content_type == artefact.MEMBERS[member.name]


def test_members_share_their_wrapped_key_and_nothing_else(path):
    headers = list(artefact.inspect(path).values())
    assert headers[0].recipients == headers[1].recipients == headers[2].recipients
    assert len({header.core["bundle"] for header in headers}) == 1
    assert len({header.core["salt"] for header in headers}) == 3


def test_one_private_key_operation_opens_it(keys, path, monkeypatch):
    identity, calls = keys.identity(), []
    unwrap = type(identity).unwrap
    monkeypatch.setattr(type(identity), "unwrap", lambda *a: calls.append(1) or unwrap(*a))
    artefact.open_artefact(path).close()
    assert len(calls) == 1


def test_members_of_two_artefacts_do_not_mix(keys, parts, alice, tmp_path):
    from tvm import relay

    model = secret.seal(small_model.onnx_bytes(seed=5, batch="n"), content_type="model/onnx")
    module, params = relay.frontend.from_onnx(model)
    other = relay.build(module, params=params)
    for mixed in ([parts[0], parts[1], other[2]], [other[0], parts[1], parts[2]]):
        with pytest.raises(errors.AuthenticationError, match="do not belong together"):
            Execution(mixed, {"data": small_model.image()})


def test_members_in_another_order_are_refused(keys, parts):
    with pytest.raises(errors.ContentTypeError, match=r"mod\.o: it holds artefact/params"):
        Execution(parts[::-1], {"data": small_model.image()})


def test_weights_of_another_import_are_not_compiled_in(keys):
    from tvm import relay

    model = secret.seal(small_model.onnx_bytes(), content_type="model/onnx")
    (module, _), (_, params) = relay.frontend.from_onnx(model), relay.frontend.from_onnx(model)
    with pytest.raises(errors.AuthenticationError, match="different imports"):
        relay.build(module, params=params)


@pytest.mark.parametrize("suite", ["aes-eax", "cobblestone-256"])
def test_imports_results_are_sealed_by_the_models_suite(keys, suite):
    from tvm import relay

    model = secret.seal(small_model.onnx_bytes(), content_type="model/onnx", suite=suite)
    assert {secret.inspect(part).suite.name for part in relay.frontend.from_onnx(model)} == {suite}


def rewritten(path, change) -> bytes:
    """The artefact's members through Python's own tar writer, with `change(tar, members)` in between."""
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        change(tar, members)
    return output.getvalue()


def add(tar, name, data=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    tar.addfile(info, io.BytesIO(data))


def write_all(tar, members, names=None):
    for (member, data), name in zip(members, names or [m.name for m, _ in members], strict=True):
        add(tar, name or member.name, data)


def replace_first(tar, members, data=b"", **how):
    add(tar, "mod.o", data, **how)
    write_all(tar, members[1:])


def with_header(path, kind: bytes, content: bytes) -> bytes:
    """The artefact after a header block of an extension, which a general reader of tars would obey."""
    info = tarfile.TarInfo("extension")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0") + path.read_bytes()


def with_size(path, field: bytes) -> bytes:
    """The artefact with another size of its first member, the header's checksum put right."""
    block = bytearray(path.read_bytes())
    block[124:136] = field
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


EXTENDED = {
    "pax: another name": lambda path: with_header(path, tarfile.XHDTYPE, b"19 path=/etc/shadow\n"),
    "pax: another size": lambda path: with_header(path, tarfile.XHDTYPE, b"22 size=1099511627776\n"),
    "pax: sparse": lambda path: with_header(path, tarfile.XHDTYPE, b"22 GNU.sparse.major=1\n"),
    "pax: for all members": lambda path: with_header(path, tarfile.XGLTYPE, b"18 linkpath=../../\n"),
    "GNU: a long name": lambda path: with_header(path, tarfile.GNUTYPE_LONGNAME, b"/etc/shadow\0"),
    "GNU: a long link": lambda path: with_header(path, tarfile.GNUTYPE_LONGLINK, b"/etc/shadow\0"),
    "size: in base 256": lambda path: with_size(path, b"\x80" + b"\xff" * 11),
    "size: below zero": lambda path: with_size(path, b"\xff" * 12),
    "size: as long as can be": lambda path: with_size(path, b"7" * 11 + b"\0"),
    "size: none": lambda path: with_size(path, b"0" * 11 + b"\0"),
    "size: with blanks": lambda path: with_size(path, b" " + path.read_bytes()[124:135]),
    "a second artefact behind": lambda path: path.read_bytes() * 2,
    "hidden behind the end": lambda path: path.read_bytes() + b"\0" * 511 + b"x",
}


@pytest.mark.parametrize("change", EXTENDED.values(), ids=EXTENDED)
def test_extensions_and_sizes_are_refused(keys, path, change):
    path.write_bytes(change(path))
    with pytest.raises(errors.SecretError):
        artefact.open_artefact(path)
    with pytest.raises(errors.SecretError):
        artefact.inspect(path)


_opened: list[tuple[str, str, int]] = []
_watching = False


def _watch(event: str, arguments: tuple) -> None:
    if _watching and (event == "open" or event.startswith(("os.", "shutil.", "tempfile."))):
        _opened.append((event, *arguments))


def test_nothing_is_extracted(keys, path):
    """Opening and running make no file, folder or link, and open none but the artefact, to read it."""
    global _watching
    Execution(path, {"data": small_model.image()})  # libraries and keys are loaded by now
    sys.addaudithook(_watch)
    _watching = True
    try:
        Execution(path, {"data": small_model.image()})
        (path.parent / "control").write_bytes(b"")
    finally:
        _watching = False
    assert _opened.pop()[1] == str(path.parent / "control")
    assert {event for event, *_ in _opened} == {"open"}
    assert {str(name) for _, name, *_ in _opened} == {str(path)}
    assert all(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0 for *_, flags in _opened)


HOSTILE = {
    "absolute path": lambda tar, m: write_all(tar, m, ["/mod.o", "mod.json", "mod.params"]),
    "parent folder": lambda tar, m: write_all(tar, m, ["../mod.o", "mod.json", "mod.params"]),
    "a link": lambda tar, m: replace_first(tar, m, kind=tarfile.SYMTYPE, link="/etc/passwd"),
    "a hard link": lambda tar, m: replace_first(tar, m, kind=tarfile.LNKTYPE, link="mod.json"),
    "a device": lambda tar, m: replace_first(tar, m, kind=tarfile.CHRTYPE),
    "a sparse file": lambda tar, m: replace_first(tar, m, m[0][1], kind=tarfile.GNUTYPE_SPARSE),
    "a duplicate": lambda tar, m: (write_all(tar, m[:1]), write_all(tar, m)),
    "a member more": lambda tar, m: (write_all(tar, m), add(tar, "extra", b"x")),
    "a member less": lambda tar, m: write_all(tar, m[:2]),
    "another order": lambda tar, m: write_all(tar, m[::-1]),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tars_are_refused(keys, path, change):
    path.write_bytes(rewritten(path, change))
    with pytest.raises(errors.SecretError):
        artefact.open_artefact(path)


def test_the_rewriting_alone_breaks_nothing(keys, path):
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    artefact.save([data for _, data in members], path)
    artefact.open_artefact(path).close()


def test_a_huge_declared_size_is_refused(keys, path):
    data = bytearray(path.read_bytes())
    info = tarfile.TarInfo("mod.o")
    info.size = 1 << 40
    data[:512] = info.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(data)
    with pytest.raises(errors.AuthenticationError, match="cut short"):
        artefact.open_artefact(path)


def test_every_byte_of_the_tar_matters(keys, path):
    good = path.read_bytes()
    blocks = [0, 100, 124, 136, 148, 156, 257, 263, 329, 345, 500]
    first = int(good[124:136].rstrip(b"\0 "), 8)
    second = 512 + first + -first % 512
    places = blocks + [second + place for place in blocks] + [second - 1, len(good) - 1, len(good) - 1024]
    for place in places:
        broken = bytearray(good)
        broken[place] ^= 1
        path.write_bytes(broken)
        with pytest.raises(errors.SecretError):
            artefact.open_artefact(path)
    for changed in (good[:-1], good[:600], good + b"\0", good + good, b""):
        path.write_bytes(changed)
        with pytest.raises(errors.SecretError):
            artefact.open_artefact(path)


def test_rewrap_to_another_device(keys, bob, path, parts):
    target = path.with_name("bob.tar")
    artefact.rewrap(path, target, [bob.public])
    with pytest.raises(errors.IdentityError):
        artefact.open_artefact(target)
    with context.use(identity=bob.private):
        data = small_model.image()
        output = Execution(target, {"data": data})
    np.testing.assert_array_equal(output, Execution(parts, {"data": data}))
    first, second, third = artefact.inspect(target).values()
    assert first.recipients == second.recipients == third.recipients


GOOD_INTERFACE = {
    "inputs": [{"name": "x", "shape": [1, "n"], "dtype": "float32"}],
    "outputs": [],
    "objects": [3],
    "format": 1,
}


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [{"name": 1, "shape": [], "dtype": "float32"}]},
        {"inputs": [{"name": "x", "shape": "12", "dtype": "float32"}]},
        {"outputs": [{"name": "x", "shape": [1.5], "dtype": "float32"}]},
        {"objects": "main"},
        {"objects": [-1, 4]},
        {"entry": None},
        {"features": "avx2"},
        {"versions": ["tvm"]},
        {"unknown": 1},
    ],
    ids=str,
)
def test_an_interface_of_other_types_is_refused(change):
    artefact.Interface.from_json(json.dumps(GOOD_INTERFACE).encode())
    with pytest.raises(errors.AuthenticationError, match="malformed"):
        artefact.Interface.from_json(json.dumps(GOOD_INTERFACE | change).encode())


# --- running


def test_module_is_reusable_and_batches_are_free(keys, path):
    with GraphModule(path) as module:
        assert [(i.name, i.shape, i.dtype) for i in module.inputs] == [("data", ["n", 3, 32, 32], "float32")]
        for batch in (1, 4, 2):
            data = small_model.image(batch, batch)
            module.set_input("data", data)
            module.run()
            wanted = small_model.reference(small_model.onnx_bytes(batch="n"), data)
            np.testing.assert_allclose(module.get_output(0), wanted, rtol=0, atol=1e-4)
        assert len(module.benchmark(repeat=3, number=2).results) == 3


def test_outputs_are_the_callers_own(keys, path):
    with GraphModule(path) as module:
        module.run(data=small_model.image())
        first = module.get_output(0)
        kept = first.copy()
        module.run(data=small_model.image(7))
        np.testing.assert_array_equal(first, kept)


def test_wrong_inputs_are_named(keys, path):
    with GraphModule(path) as module:
        with pytest.raises(errors.ModelError, match="no input 'image'; it has 'data'"):
            module.set_input("image", small_model.image())
        with pytest.raises(errors.ModelError, match="'data' wants dtype float32, got float64"):
            module.set_input("data", small_model.image().astype("float64"))
        with pytest.raises(errors.ModelError, match="'data' wants shape"):
            module.set_input("data", small_model.image()[:, :, 1:])
        with pytest.raises(errors.ModelError, match="'data' is not set"):
            module.run()
        with pytest.raises(errors.ModelError, match="has not been run"):
            module.get_output(0)


def test_unaligned_strided_and_read_only_inputs_work(keys, path):
    data = small_model.image()
    wanted = Execution(path, {"data": data})
    raw = np.empty(data.nbytes + 4, np.uint8)[4:].view("float32").reshape(data.shape)
    raw[...] = data
    strided = np.asfortranarray(data)
    locked = data.copy()
    locked.flags.writeable = False
    for variant in (raw, strided, locked):
        np.testing.assert_array_equal(Execution(path, {"data": variant}), wanted)


def test_a_closed_module_gives_nothing(keys, path):
    module = GraphModule(path)
    module.set_input("data", small_model.image())
    module.close()
    with pytest.raises(errors.ModelError):
        module.run(data=small_model.image())


def test_nothing_public_leads_to_the_runtime(keys, path):
    with GraphModule(path) as module:
        public = {name for name in dir(module) if not name.startswith("_")}
        assert public == {
            "benchmark", "close", "get_num_outputs", "get_output", "inputs", "missing_inputs", "outputs",
            "profile", "run", "set_input",
        }  # fmt: skip


def test_an_artefact_for_another_cpu_is_refused(keys, path, monkeypatch):
    from tvm_secret import runtime

    monkeypatch.setattr(runtime, "cpu_features", lambda: frozenset({"sse2"}))
    with pytest.raises(errors.TargetError, match="this CPU lacks .*--target"):
        GraphModule(path)
