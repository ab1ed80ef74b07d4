#!/usr/bin/env python3
"""Training with quantization in mind, by the Python client: the built-in digit model loses digits in few bits (precision
fake); trained by the ranges that the daemon has learned, exported and served again, it has them back. The exported file is
evaluated as PyTorch evaluates it. Needs torch; skipped without."""
import logging
import os
import sys
import tempfile
import warnings
from collections import OrderedDict

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "clients", "python"), os.path.join(ROOT, "server", "builtin")]
try:
    import numpy as np
    import onnx
    import torch
except ImportError as missing:
    print(f"SKIP: {missing}")
    sys.exit(77)
import dataset  # noqa: E402
import serving  # noqa: E402
from binary import infer  # noqa: E402
from quantd_client import QuantdError, qat  # noqa: E402

BITS, EPOCHS, BATCH = 3, 3, 64


def network(path):
    """The built-in model as a PyTorch module of the same names."""
    weights = {w.name: torch.tensor(onnx.numpy_helper.to_array(w)) for w in onnx.load(path).graph.initializer}
    nn, parts, state = torch.nn, {}, {}
    for i, (a, b) in enumerate(((1, 16), (16, 32), (32, 32)), 1):
        parts |= {f"conv{i}": nn.Conv2d(a, b, 3, padding=1, bias=False), f"bn{i}": nn.BatchNorm2d(b), f"relu{i}": nn.ReLU(),
                  f"pool{i}": nn.MaxPool2d(2)}
        state |= {f"conv{i}.weight": weights[f"conv{i}_weight"], f"bn{i}.weight": weights[f"bn{i}_scale"],
                  f"bn{i}.bias": weights[f"bn{i}_bias"], f"bn{i}.running_mean": weights[f"bn{i}_mean"],
                  f"bn{i}.running_var": weights[f"bn{i}_var"], f"bn{i}.num_batches_tracked": torch.tensor(1)}
    parts |= {"flatten": nn.Flatten(), "fc1": nn.Linear(288, 64), "relu4": nn.ReLU(), "fc2": nn.Linear(64, 10)}
    state |= {f"{f}.{what}": weights[f"{f}_{what}"] for f in ("fc1", "fc2") for what in ("weight", "bias")}
    model = nn.Sequential(OrderedDict(parts))
    model.load_state_dict(state)
    return model


def right(daemon, x, y):
    return sum(int((infer(daemon, x[i:i + 100])[0].argmax(1) == y[i:i + 100]).sum()) for i in range(0, len(x), 100))


def train(model, x, y):
    torch.manual_seed(1)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    model.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    model.eval()


def check_refusals(model, ranges):
    for arguments, word in (({"bits": 1}, "2..8"), ({"how": "guess"}, "how"), ({"names": {"fc1": "nowhere"}}, "nowhere")):
        try:
            qat.prepare_qat(model, ranges, **arguments)
        except QuantdError as refusal:
            assert word in str(refusal), refusal
        else:
            raise AssertionError(arguments)
    try:
        qat.prepare_qat(model, [t for t in ranges if t["name"] != "image"])
    except QuantdError as refusal:
        assert "conv1" in str(refusal), refusal
    else:
        raise AssertionError("a layer without a range")


def main():
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    (train_x, train_y), (test_x, test_y) = dataset.split(*dataset.load())
    train_x, test_x = dataset.as_input(train_x), dataset.as_input(test_x)
    with serving.Daemon("--precision=fake") as d:
        for image in train_x[::20]:
            infer(d, image[None])
        ranges = d.get("/v2/models/digits/ranges").json()["tensors"]
        eight = right(d, test_x, test_y)
    with serving.Daemon("--precision=fake", f"--fake-weight-bits={BITS}", f"--fake-activation-bits={BITS}") as d:
        plain = right(d, test_x, test_y)
    model = network(os.path.join(ROOT, "server", "builtin", "digits.onnx"))
    check_refusals(model, ranges)
    qat.prepare_qat(model, ranges, bits=BITS, how="learn")
    train(model, torch.tensor(train_x), torch.tensor(train_y))
    with torch.no_grad():
        expected = model(torch.tensor(test_x)).numpy()
    inside = int((expected.argmax(1) == test_y).sum())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "trained.onnx")
        qat.export(model, torch.tensor(test_x[:2]), path, input_names=["image"], output_names=["logits"])
        kinds = [node.op_type for node in onnx.load(path).graph.node]
        assert kinds.count("QuantizeLinear") >= 5, kinds
        with serving.Daemon("--precision=fp32", "--model", f"digits={path}") as d:
            served = np.concatenate([infer(d, test_x[i:i + 100])[0] for i in range(0, len(test_x), 100)])
    regained = int((served.argmax(1) == test_y).sum())
    print(f"of {len(test_y)} digits right: {eight} in 8 bits, {plain} in {BITS} bits, {inside} after training, {regained} served")
    assert np.mean(np.abs(served - expected).max(1) < 1e-3) > 0.95  # but for values beside the middle of two quanta
    assert eight - plain >= 50, "few bits cost nothing: there is nothing to regain"
    assert eight - regained <= 0.4 * (eight - plain), "training regained too little"


if __name__ == "__main__":
    main()
