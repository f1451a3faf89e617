"""TensorFlow models against TensorFlow: frozen graphs, SavedModels of both generations, what is refused."""

from __future__ import annotations

import importlib.metadata
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from keras_models import mobilenet, mobilenet_v3, randomised, transformer
from tensorflow_support import (
    Compiled,
    assert_same,
    graph_of,
    input_names,
    input_shapes,
    operators,
    tar_of,
    tf,
)

from tvm.relay.frontend.tensorflow import import_tensorflow
from tvm_secret.errors import ModelError

v1 = tf.compat.v1


def images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def frozen(model, *shape, prefix: str = "net/block") -> v1.GraphDef:
    """A Keras model as a frozen graph whose names are paths: `net/block/x` to `net/block/Identity`."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(
        tf.TensorSpec(shape, name="x")
    )
    constants = convert_variables_to_constants_v2(traced).graph.as_graph_def()
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(constants, name=prefix)
    return graph.as_graph_def()


def run_graph(graph_def: v1.GraphDef, fetches: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return session.run(fetches, feeds)


# Real architectures


def test_frozen_graph_of_mobilenet_takes_any_batch():
    graph = frozen(mobilenet(96), None, 96, 96, 3)
    imported = import_tensorflow(graph.SerializeToString())
    assert input_names(imported) == ["net/block/x"]
    assert input_shapes(imported) == [["batch", "96", "96", "3"]]
    assert imported.output_names == ["net/block/Identity"]
    assert "relax.permute_dims" not in operators(imported)
    compiled = Compiled(imported, packed=True)
    for batch in (1, 3):
        x = images(batch, 96, 96, 3, seed=batch)
        assert_same(compiled(x), run_graph(graph, ["net/block/Identity:0"], {"net/block/x:0": x}))


def test_saved_model_of_mobilenet_v3_with_a_shape_given(tmp_path):
    model = mobilenet_v3(64)
    model.export(tmp_path, verbose=False)
    name = f"serving_default_{model.inputs[0].name}"
    imported = import_tensorflow(tar_of(tmp_path), {f"{name}:0": (2, 64, 64, 3)})
    assert input_names(imported) == [name]
    assert input_shapes(imported) == [["2", "64", "64", "3"]]
    x = 100 * images(2, 64, 64, 3)
    assert_same(Compiled(imported, packed=True)(x), [model(x, training=False).numpy()])


def test_saved_model_of_a_transformer(tmp_path):
    model = transformer()
    model.export(tmp_path, verbose=False)
    compiled = Compiled(import_tensorflow(tar_of(tmp_path)))
    for batch in (1, 2):
        tokens = np.random.default_rng(batch).integers(0, 50, (batch, 12)).astype("float32")
        assert_same(compiled(tokens), [model(tokens, training=False).numpy()])


def basic_pitch() -> Path:
    """The note transcriber of Spotify's basic-pitch, a published SavedModel of TensorFlow 2.4."""
    try:
        files = importlib.metadata.files("basic-pitch")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package basic-pitch is not installed: pip install --no-deps basic-pitch")
    (graph,) = (file for file in files if file.match("icassp_2022/nmp/saved_model.pb"))
    return Path(graph.locate()).parent


def test_published_saved_model_with_its_weights():
    folder = basic_pitch()
    imported = import_tensorflow(tar_of(folder), {"input_2": (1, 43844, 1)})
    assert input_names(imported) == ["serving_default_input_2"]
    assert imported.output_names == ["contour", "note", "onset"]
    seconds = np.linspace(0, 2, 43844, dtype="float32")
    tune = 0.4 * np.sin(2 * np.pi * 440 * seconds) + 0.2 * np.sin(2 * np.pi * 659 * seconds)
    # The model takes logarithms of loudness: pitches without a sound would be logarithms of rounding errors.
    tune = (tune + 0.1 * images(43844)).reshape(1, -1, 1).astype("float32")
    with tf.Graph().as_default(), v1.Session() as session:
        signature = v1.saved_model.load(session, ["serve"], str(folder)).signature_def["serving_default"]
        fetches = [signature.outputs[name].name for name in imported.output_names]
        expected = session.run(fetches, {signature.inputs["input_2"].name: tune})
    actual = Compiled(imported, packed=True)(tune)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert actual[1].max() > 0.3, "the tune has notes to find"


# Control flow, lists, variables


def test_loop_of_tensorflow_2_unrolls():
    weights = images(4, 4, seed=1)

    def step(index, state, rows):
        state = tf.tanh(tf.matmul(state, weights) + rows[:, index])
        return index + 1, state, rows

    def recurrence(x):
        count = tf.shape(x)[1]
        state = tf.zeros([tf.shape(x)[0], 4])
        return tf.while_loop(lambda index, *_: index < count, step, [0, state, x])[1]

    x = images(3, 5, 4)
    imported = import_tensorflow(graph_of(recurrence, tf.TensorSpec([None, 5, 4], name="x")))
    assert operators(imported).count("relax.matmul") == 5
    assert len(imported.params) <= 1, "each turn uses the same weights"
    assert_same(Compiled(imported)(x), [recurrence(x).numpy()])


def test_loop_of_tensorflow_1_unrolls():
    """What `dynamic_rnn` spells: a while loop as a cycle of the graph, around arrays of tensors."""
    weights = images(4, 4, seed=1)
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [2, 6, 4], "input/x")
            rows = tf.TensorArray(tf.float32, 6).unstack(tf.transpose(x, [1, 0, 2]))
            written = tf.TensorArray(tf.float32, 6)

            def step(index, state, written):
                state = tf.tanh(tf.matmul(state, weights) + rows.read(index))
                return index + 1, state, written.write(index, state)

            _, last, written = v1.while_loop(
                lambda index, *_: index < 6, step, [0, tf.zeros([2, 4]), written]
            )
            tf.identity(last, "last")
            tf.transpose(written.stack(), [1, 0, 2], name="all")
    finally:
        v1.enable_control_flow_v2()
    graph_def = graph.as_graph_def()
    assert {"Enter", "NextIteration", "TensorArrayV3"} <= {node.op for node in graph_def.node}
    x = images(2, 6, 4)
    imported = import_tensorflow(graph_def.SerializeToString(), outputs=["last", "all:0"])
    assert_same(Compiled(imported)(x), run_graph(graph_def, ["last:0", "all:0"], {"input/x:0": x}))


def test_branches_known_at_import_vanish_and_others_become_a_choice():
    def branches(x):
        fixed = tf.cond(tf.shape(x)[0] > 1, lambda: x + 1, lambda: x - 1)
        return tf.cond(tf.reduce_sum(x) > 0, lambda: fixed * 2, lambda: -fixed)

    imported = import_tensorflow(graph_of(branches, tf.TensorSpec([2, 3], name="x")))
    assert operators(imported).count("relax.where") == 1
    compiled = Compiled(imported)
    for x in (np.ones((2, 3), "float32"), -np.ones((2, 3), "float32")):
        assert_same(compiled(x), [branches(tf.constant(x)).numpy()])


def test_flag_of_tensorflow_1_takes_its_default():
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, [2, 3], "x")
            training = v1.placeholder_with_default(False, [], "is_training")
            tf.identity(v1.cond(training, lambda: x * 0, lambda: x + 1), "y")
    finally:
        v1.enable_control_flow_v2()
    graph_def = graph.as_graph_def()
    assert "Switch" in {node.op for node in graph_def.node}
    imported = import_tensorflow(graph_def.SerializeToString())
    assert input_names(imported) == ["x"]
    x = images(2, 3)
    assert_same(Compiled(imported)(x), [x + 1])


@pytest.mark.parametrize("resource", [True, False], ids=["resource variables", "reference variables"])
def test_saved_model_of_tensorflow_1(tmp_path, resource):
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], "input/x")
        kernel = v1.get_variable("conv/kernel", [3, 3, 3, 4], use_resource=resource)
        bias = v1.get_variable("conv/bias", [4], use_resource=resource)
        y = tf.nn.relu(tf.nn.conv2d(x, kernel, 2, "SAME") + bias, name="out/y")
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": x}, {"scores": y})
        builder = v1.saved_model.Builder(str(tmp_path / "saved"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"predict": signature})
        builder.save()
        value = images(2, 8, 8, 3)
        expected = session.run(y, {x: value})
    for name in ("images", "input/x", "input/x:0"):
        imported = import_tensorflow(tar_of(tmp_path / "saved"), {name: (2, 8, 8, 3)})
        assert input_names(imported) == ["input/x"]
        assert input_shapes(imported) == [["2", "8", "8", "3"]]
    assert set(imported.params) == {"conv/kernel"}, "four numbers of bias are a constant"
    assert imported.output_names == ["scores"]
    assert_same(Compiled(imported)(value), [expected])


class Affine(tf.Module):
    def __init__(self):
        self.weights = tf.Variable(images(6, 5, seed=2), name="weights")

    @tf.function(input_signature=[tf.TensorSpec([None, 6], name="x"), tf.TensorSpec([None, 5], name="y")])
    def both(self, x, y):
        product = tf.matmul(x, self.weights)
        return {"sum": product + y, "product": product}

    @tf.function(input_signature=[tf.TensorSpec([None, 6], name="x")])
    def one(self, x):
        return {"product": tf.matmul(x, self.weights)}


def test_saved_model_of_a_module(tmp_path):
    module = Affine()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.both, "one": module.one})
    imported = import_tensorflow(tar_of(tmp_path))
    assert input_names(imported) == ["serving_default_x", "serving_default_y"]
    assert imported.output_names == ["product", "sum"]
    x, y = images(3, 6), images(3, 5, seed=3)
    expected = module.both(x, y)
    assert_same(Compiled(imported)(x, y), [expected["product"].numpy(), expected["sum"].numpy()])

    chosen = import_tensorflow(tar_of(tmp_path), outputs=["sum"])
    assert chosen.output_names == ["sum"]
    with pytest.raises(ModelError, match=r"no output 'other': it has 'product', 'sum'"):
        import_tensorflow(tar_of(tmp_path), outputs=["other"])
    with pytest.raises(ModelError, match=r"no input 'z': it has 'serving_default_x', 'serving_default_y'"):
        import_tensorflow(tar_of(tmp_path), {"z": (1, 2)})


def test_saved_model_without_a_default_signature_lists_what_it_has(tmp_path):
    module = Affine()
    tf.saved_model.save(module, str(tmp_path), signatures={"a": module.both, "b": module.one})
    with pytest.raises(ModelError, match=r"no signature 'serving_default'.*'a', 'b'"):
        import_tensorflow(tar_of(tmp_path))
    only = tmp_path / "only"
    tf.saved_model.save(module, str(only), signatures={"b": module.one})
    assert input_names(import_tensorflow(tar_of(only))) == ["b_x"]


# Shapes


def test_open_sizes_are_symbols_or_given():
    graph = graph_of(lambda x: tf.nn.relu(x), tf.TensorSpec([None, None, 3], name="x"))
    assert input_shapes(import_tensorflow(graph)) == [["batch", "x_1", "3"]]
    assert input_shapes(import_tensorflow(graph, {"x": ("n", 7, 3)})) == [["n", "7", "3"]]
    assert input_shapes(import_tensorflow(graph, {"x:0": (-1, 7, 3)})) == [["batch", "7", "3"]]
    with pytest.raises(ModelError, match=r"input 'x' has 3 dimensions, and the shape given for it 2"):
        import_tensorflow(graph, {"x": (1, 7)})


def test_shapes_computed_from_an_open_size():
    def heads(x):
        size = tf.shape(x)
        split = tf.reshape(x, [size[0], size[1] // 2, 2, 4])
        flat = tf.reshape(tf.transpose(split, [0, 2, 1, 3]), [-1, 4])
        tiled = tf.tile(flat[:1], [size[0] * 3, 1])
        wide = tf.reshape(x, tf.stack([tf.cast(size[0], tf.int64) * 6, tf.constant(4, tf.int64)]))
        broadcast = tf.broadcast_to(x[:, :1], tf.where([True, False, True], size, [0, 9, 0]))
        scaled = tf.cast(size[0], tf.float32) * x
        return flat, tiled, wide, broadcast, scaled, x[:, -1], x[size[0] - 1 :], tf.fill([size[0], 2], 3.0)

    graph = graph_of(heads, tf.TensorSpec([None, 6, 4], name="x"))
    compiled = Compiled(import_tensorflow(graph))
    for batch in (1, 4):
        x = images(batch, 6, 4)
        assert_same(compiled(x), [result.numpy() for result in heads(tf.constant(x))])


def test_slice_from_an_end_that_an_open_size_decides_is_refused():
    graph = graph_of(lambda x: x[3 - tf.shape(x)[0] :], tf.TensorSpec([None, 2], name="x"))
    with pytest.raises(ModelError, match="StridedSlice.*negative depends on an open size"):
        import_tensorflow(graph)
    import_tensorflow(graph, {"x": (4, 2)})


def test_size_that_must_be_known_names_the_input():
    graph = graph_of(
        lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME"), tf.TensorSpec([1, None, 8, 3], name="photo")
    )
    with pytest.raises(ModelError, match=r"MaxPool.*'photo'.*give its shape"):
        import_tensorflow(graph)
    import_tensorflow(graph, {"photo": (1, 9, 8, 3)})


def test_unknown_rank_names_the_input():
    graph = graph_of(tf.nn.relu, tf.TensorSpec(None, name="x"))
    with pytest.raises(ModelError, match="rank of its input 'x'"):
        import_tensorflow(graph)
    x = images(2, 2)
    assert_same(Compiled(import_tensorflow(graph, {"x": (2, 2)}))(x), [np.maximum(x, 0)])


# What is refused


def test_unsupported_operator_is_named_with_its_node():
    graph = graph_of(lambda x: tf.signal.rfft(x, name="spectrum/rfft"), tf.TensorSpec([2, 8], name="x"))
    with pytest.raises(ModelError, match="operator RFFT at node 'spectrum/rfft' is not supported"):
        import_tensorflow(graph)


def test_operators_with_effects_do_not_run_at_import(tmp_path):
    victim = tmp_path / "written"
    graph = v1.GraphDef()
    with tf.Graph().as_default() as built:
        x = v1.placeholder(tf.float32, [1], "x")
        tf.raw_ops.WriteFile(filename=str(victim), contents="text", name="write")
        tf.io.read_file(str(victim), name="read")
        tf.identity(x, "y")
        graph = built.as_graph_def()
    for output in ("write", "read"):
        with pytest.raises(ModelError, match=f"at node '{output}' is not supported"):
            import_tensorflow(graph.SerializeToString(), outputs=[output])
    assert not victim.exists()


def test_restore_operation_of_a_saved_model_only_assigns(tmp_path):
    """A SavedModel brings its own graph for restoring: it is walked, and writes nothing."""
    victim = tmp_path / "written"
    module = Affine()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.one)
    from tensorflow.core.protobuf import saved_model_pb2

    path = tmp_path / "saved" / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.raw_ops.WriteFile(filename=str(victim), contents="text", name="write")
    saved.meta_graphs[0].graph_def.node.extend(graph.as_graph_def().node)
    saved.meta_graphs[0].saver_def.restore_op_name = "write"
    path.write_bytes(saved.SerializeToString())
    with pytest.raises(ModelError, match="operator WriteFile at node 'write' is not supported"):
        import_tensorflow(tar_of(tmp_path / "saved"))
    assert not victim.exists()


def test_loop_that_depends_on_the_data_is_refused():
    def loop(x):
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9, lambda y: [y + 1], [x])

    with pytest.raises(ModelError, match="depends on the data"):
        import_tensorflow(graph_of(loop, tf.TensorSpec([2], name="x")))


def test_wrong_names_list_the_right_ones():
    graph = graph_of(lambda x: tf.nn.relu(x, name="scores"), tf.TensorSpec([2], name="x"))
    with pytest.raises(ModelError, match=r"no input 'image': it has 'x'"):
        import_tensorflow(graph, {"image": (2,)})
    with pytest.raises(ModelError, match=r"output 'nothing': it ends in 'Identity'"):
        import_tensorflow(graph, outputs=["nothing"])
    assert import_tensorflow(graph, outputs=["scores:0"]).output_names == ["scores"]


def test_every_loose_end_is_an_output():
    def parts(x):
        return tf.raw_ops.TopKV2(input=x, k=2, name="best")

    with tf.Graph().as_default() as graph:
        parts(v1.placeholder(tf.float32, [2, 5], "x"))
    imported = import_tensorflow(graph.as_graph_def().SerializeToString())
    assert imported.output_names == ["best", "best:1"]
    x = images(2, 5)
    values, indices = parts(tf.constant(x))
    assert_same(Compiled(imported)(x), [values.numpy(), indices.numpy()])


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 64, b"not a model at all", b"\x0a\xff\xff\xff\x7f"],
    ids=["empty", "zeros", "text", "length"],
)
def test_other_bytes_are_refused(content):
    with pytest.raises(ModelError, match="not a TensorFlow model"):
        import_tensorflow(content)


def test_truncated_graph_is_refused():
    graph = frozen(randomised(tf.keras.Sequential([tf.keras.Input((6,)), tf.keras.layers.Dense(64)])), 1, 6)
    content = graph.SerializeToString()
    with pytest.raises(ModelError):
        import_tensorflow(content[: len(content) // 2])


def archive(**members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, change in members.items():
            member = tarfile.TarInfo(name)
            content = change if isinstance(change, bytes) else b""
            member.size = len(content)
            if callable(change):
                change(member)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link(member: tarfile.TarInfo) -> None:
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(**{"saved_model.pb": b"\xff\xff"}), "not a SavedModel"),
        (archive(**{"model/saved_model.pb": b""}), "not at its top"),
        (archive(**{"../saved_model.pb": b""}), "lies outside"),
        (archive(**{"/saved_model.pb": b""}), "lies outside"),
        (archive(**{"saved_model.pb": link}), "not a plain file"),
        (archive(**{"saved_model.pb": bytes(9000)})[:4096], "damaged|cut short"),
    ],
    ids=["content", "nested", "parent", "absolute", "link", "truncated"],
)
def test_bad_archives_are_refused(content, message):
    with pytest.raises(ModelError, match=message):
        import_tensorflow(content)


def test_damaged_variables_are_refused(tmp_path):
    module = Affine()
    tf.saved_model.save(module, str(tmp_path), signatures=module.one)
    index = tmp_path / "variables" / "variables.index"
    index.write_bytes(index.read_bytes()[:20])
    with pytest.raises(ModelError, match="do not hold '.*', or are damaged"):
        import_tensorflow(tar_of(tmp_path))


def test_memory_file_system_is_left_empty(tmp_path, monkeypatch):
    """What `ram://` holds while a checkpoint is read is gone afterwards, also after an error."""
    module = Affine()
    tf.saved_model.save(module, str(tmp_path), signatures=module.one)
    content = tar_of(tmp_path)
    written = []
    opened = tf.io.gfile.GFile

    def record(path, mode):
        written.append(path)
        return opened(path, mode)

    monkeypatch.setattr(tf.io.gfile, "GFile", record)
    import_tensorflow(content)
    with pytest.raises(ModelError):
        import_tensorflow(content, {"x": (2, 7)})
    assert len(written) == 4, "the index and the data of two imports"
    assert all(path.startswith("ram://") for path in written)
    assert not any(tf.io.gfile.exists(path) for path in written)
