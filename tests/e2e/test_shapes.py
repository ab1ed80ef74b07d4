#!/usr/bin/env python3
"""Sizes that a model leaves open: reported by name, and a request's sizes checked against the fixed ones and against each
other, with one sentence and 400. Needs only the standard library."""
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from little_onnx import number, text, value  # noqa: E402
from serving import Daemon, run  # noqa: E402


def two_inputs():
    """y = a + b: a [batch, 3, ?], b [batch, 3, 1]; z = c: [n, n]."""
    nodes = text(1, text(1, "a") + text(1, "b") + text(2, "y") + text(4, "Add")) + text(1, text(1, "c") + text(2, "z") + text(4, "Relu"))
    graph = nodes + text(2, "g") + text(11, value("a", ("batch", 3, "?"))) + text(11, value("b", ("batch", 3, 1)))
    graph += text(11, value("c", ("n", "n"))) + text(12, value("y", ("batch", 3, "any"))) + text(12, value("z", ("n", "n")))
    return number(1, 8) + text(7, graph) + text(8, text(1, "") + number(2, 13))


def ask(d, a, b, c=(1, 1)):
    def tensor(name, shape):
        count = 1
        for size in shape:
            count *= size
        return {"name": name, "datatype": "FP32", "shape": list(shape), "data": [1] * count}
    return d.post("/v2/models/two/infer", {"inputs": [tensor("a", a), tensor("b", b), tensor("c", c)]})


def test_names_are_reported(d):
    meta = d.get("/v2/models/two").json()
    a, b, c = meta["inputs"]
    assert a["shape"] == [-1, 3, -1] and a["parameters"]["dim_names"] == ["batch", None, None], a
    assert b["shape"] == [-1, 3, 1] and b["parameters"]["dim_names"] == ["batch", None, None], b
    assert c["shape"] == [-1, -1] and c["parameters"]["dim_names"] == ["n", "n"], c
    assert meta["outputs"][0]["parameters"]["dim_names"] == ["batch", None, "any"]


def test_any_size_runs(d):
    for batch, width, n in ((1, 1, 1), (4, 2, 3), (2, 5, 2), (0, 2, 1)):
        answer = ask(d, (batch, 3, width), (batch, 3, 1), (n, n))
        assert answer.status == 200, answer.body
        y, z = answer.json()["outputs"]
        assert y["shape"] == [batch, 3, width] and set(y["data"]) <= {2} and z["shape"] == [n, n], answer.body


def test_wrong_sizes_are_refused(d):
    for shapes, sentence in [
            (((2, 4, 1), (2, 3, 1)), "input 'a' has shape [2, 4, 1], the model wants [batch, 3, ?]"),
            (((2, 3), (2, 3, 1)), "input 'a' has shape [2, 3], the model wants [batch, 3, ?]"),
            (((2, 3, 1), (2, 3, 2)), "input 'b' has shape [2, 3, 2], the model wants [batch, 3, 1]"),
            (((2, 3, 1), (3, 3, 1)), "dimension 'batch' is 3 in input 'b' and 2 in input 'a'"),
            (((2, 3, 1), (1, 3, 1)), "dimension 'batch' is 1 in input 'b' and 2 in input 'a'"),
            (((2, 3, 1), (2, 3, 1), (2, 3)), "dimension 'n' is 2 in input 'c' and 3 in input 'c'")]:
        answer = ask(d, *shapes)
        assert answer.status == 400 and answer.json()["error"] == sentence, (answer.status, answer.body)


def main():
    with tempfile.TemporaryDirectory(prefix="quantd-shapes-") as place:
        path = os.path.join(place, "two.onnx")
        with open(path, "wb") as file:
            file.write(two_inputs())
        with Daemon("--model", f"two={path}") as d:
            return run([test_names_are_reported, test_any_size_runs, test_wrong_sizes_are_refused], d)


sys.exit(main())
