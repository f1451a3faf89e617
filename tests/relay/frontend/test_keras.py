"""Keras models against Keras: both file formats, any batch, what is refused."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras_models import randomised, resnet, transformer
from tensorflow_support import (
    Compiled,
    assert_same,
    assert_silent_and_writes_nothing,
    input_names,
    input_shapes,
    operators,
    tar_of,
)

from tvm.relay.frontend.keras import import_keras
from tvm_secret.errors import ModelError
from zoo import efficientnet_lite0, efficientnet_lite0_keras
from zoo.photos import photos

layers = keras.layers


def saved(model, path) -> bytes:
    model.save(path)
    return path.read_bytes()


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def dense_model() -> keras.Model:
    x = keras.Input((6,), name="features")
    return randomised(keras.Model(x, layers.Dense(5, name="scores")(layers.Dense(20, activation="relu")(x))))


# Real architectures


def test_archive_of_efficientnet_lite_with_pretrained_weights(tmp_path):
    """On photos: against Keras, and Keras against the network that the weights come from."""
    torch = pytest.importorskip("torch", reason="needs torch for the network's weights")
    model = efficientnet_lite0_keras.build(efficientnet_lite0.weights())
    images, classes = photos(3)
    planes = efficientnet_lite0.preprocess(images)
    x = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    expected = model(x, training=False).numpy()
    assert_same([expected], [efficientnet_lite0.torch_model()(torch.from_numpy(planes)).numpy()])
    assert list(expected.argmax(1)) == classes

    imported = import_keras(saved(model, tmp_path / "model.keras"))
    assert input_shapes(imported) == [["batch", "224", "224", "3"]]
    assert imported.output_names == ["logits"]
    assert "relax.permute_dims" not in operators(imported)
    compiled = Compiled(imported, packed=True)
    assert_same(compiled(x[:2]), [expected[:2]])
    assert_same(compiled(x[2:]), [expected[2:]])


def test_hdf5_of_resnet_with_a_shape_given(tmp_path):
    model = resnet(64)
    content = saved(model, tmp_path / "model.h5")
    name = model.layers[0].name
    imported = import_keras(content, {name: (2, 64, 64, 3)})
    assert input_names(imported) == [name]
    assert input_shapes(imported) == [["2", "64", "64", "3"]]
    x = values(2, 64, 64, 3)
    assert_same(Compiled(imported, packed=True)(x), [model(x, training=False).numpy()])


def test_recurrent_network(tmp_path):
    tokens = keras.Input((7,), name="tokens")
    x = layers.Embedding(30, 8, mask_zero=True)(tokens)
    x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
    x = layers.GRU(7)(x)
    model = randomised(keras.Model(tokens, layers.Dense(6)(x)))
    compiled = Compiled(import_keras(saved(model, tmp_path / "model.keras")))
    for batch in (1, 2):
        sentence = np.random.default_rng(batch).integers(1, 30, (batch, 7)).astype("float32")
        sentence[:, 5:] = 0
        assert_same(compiled(sentence), [model(sentence, training=False).numpy()])


def test_transformer(tmp_path):
    model = transformer()
    compiled = Compiled(import_keras(saved(model, tmp_path / "model.keras")))
    for batch in (1, 2):
        tokens = np.random.default_rng(batch).integers(0, 50, (batch, 12)).astype("float32")
        assert_same(compiled(tokens), [model(tokens, training=False).numpy()])


# Interfaces


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_several_inputs_and_outputs_keep_their_names(tmp_path, suffix):
    image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="extra")
    x = layers.Flatten()(layers.SeparableConv2D(5, 3, strides=2, padding="same")(image))
    joined = layers.Concatenate()([x, extra])
    outputs = [
        layers.Dense(3, name="left")(joined),
        layers.Dense(2, activation="softmax", name="right")(joined),
    ]
    model = randomised(keras.Model([image, extra], outputs))
    imported = import_keras(saved(model, tmp_path / f"model.{suffix}"))
    assert input_names(imported) == ["image", "extra"]
    assert imported.output_names == ["left", "right"]
    inputs = [values(2, 8, 8, 3), values(2, 4)]
    assert_same(Compiled(imported)(*inputs), [output.numpy() for output in model(inputs, training=False)])


def test_inputs_by_name(tmp_path):
    inputs = {"b": keras.Input((3,), name="b"), "a": keras.Input((3,), name="a")}
    model = keras.Model(inputs, {"difference": layers.Subtract()([inputs["a"], inputs["b"]])})
    imported = import_keras(saved(model, tmp_path / "model.keras"))
    given = {"a": values(2, 3), "b": values(2, 3, seed=1)}
    ordered = [given[name] for name in input_names(imported)]
    assert_same(Compiled(imported)(*ordered), [given["a"] - given["b"]])


def test_sequential_and_nested_models(tmp_path):
    features = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    )
    model = keras.Sequential(
        [keras.Input((16, 16, 3), name="photo"), features, layers.GlobalMaxPooling2D(), layers.Dense(7)]
    )
    imported = import_keras(saved(randomised(model), tmp_path / "model.keras"))
    assert input_names(imported) == ["photo"]
    x = values(2, 16, 16, 3)
    assert_same(Compiled(imported)(x), [model(x, training=False).numpy()])


def test_dropout_and_training_state_are_left_out(tmp_path):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.Dense(5)]
    )
    model.compile("adam", "mse")
    model.fit(values(8, 6), values(8, 5), verbose=0)
    imported = import_keras(saved(model, tmp_path / "model.keras"))
    assert operators(imported) == ["relax.matmul", "relax.add"]
    x = values(2, 6)
    assert_same(Compiled(imported)(x), [model(x, training=False).numpy()])


def test_weights_carry_their_variables_names(tmp_path):
    imported = import_keras(saved(dense_model(), tmp_path / "model.keras"))
    assert {"scores/kernel": (20, 5)}.items() <= {n: a.shape for n, a in imported.params.items()}.items()
    assert len(imported.params) == 3, "five numbers of bias are a constant"


# What is refused


def test_wrong_names_and_shapes(tmp_path):
    content = saved(dense_model(), tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"no input 'data': it has 'features'"):
        import_keras(content, {"data": (1, 6)})
    with pytest.raises(ModelError, match=r"input 'features' has 2 dimensions, and the shape given for it 3"):
        import_keras(content, {"features": (1, 6, 1)})
    with pytest.raises(
        ModelError, match=r"cannot run the model on inputs of these shapes: 'features' \(1, 7\)"
    ):
        import_keras(content, {"features": (1, 7)})


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_lambda_is_refused(tmp_path, suffix):
    x = keras.Input((6,))
    model = keras.Model(x, layers.Lambda(lambda tensor: tensor * 2, name="doubling")(x))
    with pytest.raises(ModelError, match="layer 'doubling' is a Lambda layer, which is refused"):
        import_keras(saved(model, tmp_path / f"model.{suffix}"))


@keras.saving.register_keras_serializable(package="tests")
class Doubling(layers.Layer):
    def call(self, x):
        return 2 * x


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_custom_layer_is_refused_even_where_it_is_registered(tmp_path, suffix):
    x = keras.Input((6,))
    model = keras.Model(x, Doubling(name="twice")(x))
    with pytest.raises(ModelError, match="layer 'twice' uses '(tests>)?Doubling', which is not Keras's own"):
        import_keras(saved(model, tmp_path / f"model.{suffix}"))


def tampered(content: bytes, change) -> bytes:
    """The archive with its configuration changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            entry = old.read(name)
            if name == "config.json":
                config = json.loads(entry)
                change(config)
                entry = json.dumps(config).encode()
            new.writestr(name, entry)
    return buffer.getvalue()


def _activation(config, activation) -> None:
    config["config"]["layers"][1]["config"]["activation"] = activation


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ({"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}, "holds a Python function"),
        (
            {"class_name": "function", "config": "system", "module": "os", "registered_name": "system"},
            "'system'",
        ),
        (
            {"class_name": "Popen", "config": {}, "module": "subprocess", "registered_name": "Popen"},
            "'Popen'",
        ),
        ({"class_name": "Foo", "config": {}, "module": "keras.layers", "registered_name": "a>Foo"}, "'Foo'"),
        ({"class_name": "__typespec__", "config": {}, "module": "os"}, "holds a Python function"),
    ],
    ids=["lambda", "function", "class", "registered", "typespec"],
)
def test_configuration_that_would_run_code_is_refused(tmp_path, activation, message):
    content = saved(dense_model(), tmp_path / "model.keras")
    with pytest.raises(ModelError, match=message):
        import_keras(tampered(content, lambda config: _activation(config, activation)))


def test_keras_own_utilities_are_not_layers(tmp_path):
    reader = {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "get_file",
    }
    content = saved(dense_model(), tmp_path / "model.keras")
    with pytest.raises(ModelError):
        import_keras(tampered(content, lambda config: _activation(config, reader)))


def test_vocabulary_is_refused(tmp_path):
    words = keras.Input((4,), dtype="int32")
    lookup = layers.IntegerLookup(vocabulary=[4, 7, 9], name="index")
    model = keras.Model(words, layers.Embedding(5, 6)(lookup(words)))
    with pytest.raises(ModelError, match="layer 'index' is a IntegerLookup|archive holds 'assets"):
        import_keras(saved(model, tmp_path / "model.keras"))


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, suffix, part):
    content = saved(dense_model(), tmp_path / f"model.{suffix}")
    with pytest.raises(ModelError, match="not a Keras model|cannot read"):
        import_keras(content[: int(len(content) * part)])


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither"),
        (b"PK\x03\x04 and no more", "damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "HDF5 file is damaged"),
        (zipped(**{"config.json": b"{"}), "configuration is damaged"),
        (zipped(**{"config.json": b"[" * 200_000}), "configuration is damaged"),
        (zipped(**{"config.json": bytes((1 << 26) + 1)}), "beyond measure"),
        (zipped(**{"config.json": b"{}", "../evil": b""}), "holds '../evil'"),
        (zipped(**{"metadata.json": b"{}"}), "does not hold one 'config.json'"),
        (zipped(**{"config.json": b"{}", "model.weights.h5": b"x"}), "cannot read"),
    ],
    ids=["empty", "stub", "hdf5", "json", "deep", "bomb", "escape", "no config", "no model"],
)
def test_bad_files_are_refused(content, message):
    with pytest.raises(ModelError, match=message):
        import_keras(content)


def test_weights_without_a_model_are_refused(tmp_path):
    model = dense_model()
    model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ModelError, match="holds weights alone"):
        import_keras((tmp_path / "model.weights.h5").read_bytes())


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "model.h5"
    dense_model().save(path)
    with h5py.File(path, "r+") as file:
        del file["model_weights/scores"]
    with pytest.raises(ModelError, match="cannot read"):
        import_keras(path.read_bytes())


_IMPORT = """
import pathlib, sys
from tvm.relay.frontend import keras, tensorflow
keras.import_keras(pathlib.Path(sys.argv[1]).read_bytes())
for path in map(pathlib.Path, sys.argv[2:]):
    read = tensorflow.import_tensorflow if path.suffix == ".tar" else keras.import_keras
    read(path.read_bytes())
"""


def test_import_is_silent_and_writes_nothing(tmp_path):
    """In a process of its own: Keras's two formats and a SavedModel.

    A first model starts Keras, which writes its settings to the home folder.
    """
    model = dense_model()
    paths = [tmp_path / name for name in ("first.keras", "second.keras", "second.h5", "saved.tar")]
    for path in paths[:-1]:
        model.save(path)
    model.export(tmp_path / "saved", verbose=False)
    paths[-1].write_bytes(tar_of(tmp_path / "saved"))
    assert_silent_and_writes_nothing(_IMPORT, paths, tmp_path)
