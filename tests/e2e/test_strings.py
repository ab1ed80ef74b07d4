#!/usr/bin/env python3
"""Strings and classical models over HTTP, by tritonclient[http] and by hand: BYTES in JSON and in binary tensors, labels as
answers, a ZipMap as the matrix it is made of, an FP32 shadow of such requests, and users' mistakes."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
try:
    import numpy as np
    import onnx
    import tritonclient.http as client
    from onnx import TensorProto, helper
except ImportError as error:
    print(f"SKIP: {error} (tests/requirements.txt names the packages)")
    sys.exit(77)
from serving import Daemon, run

ML = "ai.onnx.ml"


def pets():
    """Weight and sound of a pet to its kind: a one-hot encoder beside a number, then a linear classifier of three classes."""
    nodes = [
        helper.make_node("OneHotEncoder", ["sound"], ["hot"], domain=ML, cats_strings=["wau", "miau"], zeros=1),
        helper.make_node("Reshape", ["hot", "flat"], ["sounds"]),
        helper.make_node("Concat", ["weight", "sounds"], ["x"], axis=1),
        helper.make_node("LinearClassifier", ["x"], ["label", "scores"], domain=ML, coefficients=[.1, 4., 0., 0., 0., 4., 0., 0., 0.],
                         intercepts=[0., 0., 2.], classlabels_strings=["Hund", "Katze", "Fisch \u00e9"],
                         post_transform="SOFTMAX"),
        helper.make_node("ZipMap", ["scores"], ["maps"], domain=ML, classlabels_strings=["Hund", "Katze", "Fisch \u00e9"]),
        helper.make_node("StringConcat", ["sound", "mark"], ["cry"])]
    maps = onnx.ValueInfoProto(name="maps")
    maps.type.sequence_type.elem_type.map_type.key_type = TensorProto.STRING
    maps.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "pets", [helper.make_tensor_value_info("weight", TensorProto.FLOAT, ["n", 1]),
                        helper.make_tensor_value_info("sound", TensorProto.STRING, ["n", 1])],
        [helper.make_tensor_value_info("label", TensorProto.STRING, ["n"]), maps,
         helper.make_tensor_value_info("cry", TensorProto.STRING, ["n", 1])],
        [helper.make_tensor("flat", TensorProto.INT64, [2], [-1, 2]), helper.make_tensor("mark", TensorProto.STRING, [1], ["!"])])
    return helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(ML, 3)])


def ask(d, binary):
    weight = np.array([[1.0], [2.0], [0.5]], np.float32)
    sound = np.array([["wau"], ["miau"], [""]], dtype=np.object_)
    with client.InferenceServerClient(f"127.0.0.1:{d.port}") as c:
        names = {o["name"]: o["datatype"] for o in c.get_model_metadata("pets")["outputs"]}
        assert names == {"label": "BYTES", "maps": "FP32", "cry": "BYTES"}, names
        inputs = [client.InferInput("weight", [3, 1], "FP32"), client.InferInput("sound", [3, 1], "BYTES")]
        inputs[0].set_data_from_numpy(weight, binary_data=binary)
        inputs[1].set_data_from_numpy(sound, binary_data=binary)
        wanted = [client.InferRequestedOutput(n, binary_data=binary) for n in names]
        answer = c.infer("pets", inputs, outputs=wanted)
    def text(array):
        return [t.decode() if isinstance(t, bytes) else t for t in array.reshape(-1).tolist()]
    assert text(answer.as_numpy("label")) == ["Hund", "Katze", "Fisch \u00e9"]
    assert text(answer.as_numpy("cry")) == ["wau!", "miau!", "!"]
    maps = answer.as_numpy("maps")
    assert maps.shape == (3, 3) and np.allclose(maps.sum(axis=1), 1) and maps.argmax(axis=1).tolist() == [0, 1, 2]


def test_binary(d):
    ask(d, True)


def test_json(d):
    ask(d, False)


def test_mistakes(d):
    weight = {"name": "weight", "datatype": "FP32", "shape": [1, 1], "data": [1]}
    sound = {"name": "sound", "datatype": "BYTES", "shape": [1, 1], "data": ["wau"]}
    assert d.post("/v2/models/pets/infer", {"inputs": [weight, sound]}).status == 200
    for broken, words in (({**sound, "data": [1]}, "no string"), ({**sound, "datatype": "FP32", "data": [1]}, "BYTES"),
                          ({**sound, "shape": [2, 1]}, "needs 2"), ({**sound, "data": [["wau", "b"]]}, "sound")):
        answer = d.post("/v2/models/pets/infer", {"inputs": [weight, broken]})
        assert answer.status == 400 and words in answer.body.decode(), (answer.status, answer.body)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="strings-") as folder:
        path = os.path.join(folder, "pets.onnx")
        onnx.save(pets(), path)
        with Daemon("--model", f"pets={path}", "--shadow-rate", "1") as daemon:
            status = run([test_binary, test_json, test_mistakes], daemon)
    sys.exit(status)
