#!/usr/bin/env python3
"""The nine image networks inside the onnx package (light_*.onnx: whole graphs whose weights are constants made by nodes).
Each must load and match the output stored beside it, by the standard's own tolerances. Equal weights hide a wrong index,
so those that are small enough run a second time with random weights, and ONNX Runtime is the judge. Folders in the layout
that `quantd test` reads are made in a temporary place. Not for speed, and not for the operators' corners: node tests.

    test_light.py [part-of-a-name ...]"""
# builds: plain
# timeout: 900
import glob
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUANTD = os.environ.get("QUANTD", os.path.join(ROOT, "build", "quantd"))
NETWORKS = 9
MOST_WEIGHTS = 32 << 20  # elements: with random weights VGG-19 alone would be a file of 574 MB
RTOL = {"light_densenet121": "2e-3"}  # the standard's, 1e-3 for the others


def save(folder, model, inputs, outputs):
    """`model`: bytes. Inputs and outputs: arrays."""
    from onnx import numpy_helper
    data = os.path.join(folder, "test_data_set_0")
    os.makedirs(data)
    with open(os.path.join(folder, "model.onnx"), "wb") as f:
        f.write(model)
    for kind, arrays in (("input", inputs), ("output", outputs)):
        for i, array in enumerate(arrays):
            with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as f:
                f.write(numpy_helper.from_array(array).SerializeToString())


def image(model):
    """What the standard's runner gives these networks: 0 up to 1 in even steps."""
    import numpy as np
    stored = {i.name for i in model.graph.initializer}
    given = [i for i in model.graph.input if i.name not in stored]
    assert len(given) == 1, [i.name for i in given]
    shape = [d.dim_value for d in given[0].type.tensor_type.shape.dim]
    n = int(np.prod(shape))
    return given[0].name, (np.arange(n).reshape(shape) / n).astype(np.float32)


def weight(rng, shape):
    """Random, of the size that keeps activations near 1 through many layers; one dimension: near 1, for variances too."""
    import numpy as np
    if len(shape) < 2:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape, np.float32) * (2 / fan_in) ** 0.5).astype(np.float32)


def with_random_weights(model):
    """Puts initializers in the place of the nodes that make constant weights; None when there would be too many."""
    import numpy as np
    import onnx
    rng = np.random.default_rng(7)
    shapes = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    makers = [n for n in model.graph.node if n.op_type == "ConstantOfShape"]
    assert makers and all(n.input[0] in shapes for n in makers)
    if sum(int(np.prod(shapes[n.input[0]])) for n in makers) > MOST_WEIGHTS:
        return None
    rest = [n for n in model.graph.node if n.op_type != "ConstantOfShape"]
    del model.graph.node[:]
    model.graph.node.extend(rest)
    for n in makers:
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight(rng, shapes[n.input[0]]), n.output[0]))
    return model


def judged(model, name, x):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: x})
    assert all(y.std() > 0.01 * abs(y).mean() for y in outputs), "such outputs would hide a mistake"
    return outputs


def quantd_test(folder, *flags):
    """True when it passes; its line is printed."""
    run = subprocess.run([QUANTD, "test", *flags, folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(" ".join(flags[:2]) + ":", *run.stdout.splitlines()[:1], flush=True)
    return run.returncode == 0 and run.stdout.startswith("PASS ")


def check(path, place):
    """How many runs of this network passed and failed."""
    import onnx
    name, model = os.path.basename(path)[:-len(".onnx")], onnx.load(path)
    with open(path[:-len(".onnx")] + "_output_0.pb", "rb") as f:
        stored = onnx.numpy_helper.to_array(onnx.load_tensor(f))
    given, x = image(model)
    folder = os.path.join(place, name)
    save(folder, open(path, "rb").read(), [x], [stored])
    done = [quantd_test(folder, "--precision", "fp32", "--rtol", RTOL.get(name, "1e-3"), "--atol", "1e-7")]
    model = with_random_weights(model)
    if model:
        folder = os.path.join(place, name + "_random")
        save(folder, model.SerializeToString(), [x], judged(model, given, x))
        done.append(quantd_test(folder, "--precision", "fp32", "--rtol", "1e-3", "--atol", "1e-5"))
    return sum(done), len(done) - sum(done)


def main():
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as missing:
        print(f"SKIP: {missing}")
        sys.exit(77)
    found = sorted(glob.glob(os.path.join(os.path.dirname(onnx.__file__), "backend/test/data/light/light_*.onnx")))
    if len(found) != NETWORKS:
        sys.exit(f"the onnx package has {len(found)} light networks, expected {NETWORKS}")
    passed = failed = 0
    for path in found:
        if len(sys.argv) > 1 and not any(part in path for part in sys.argv[1:]):
            continue
        with tempfile.TemporaryDirectory(prefix="quantd-light-") as place:
            more = check(path, place)
            passed, failed = passed + more[0], failed + more[1]
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
