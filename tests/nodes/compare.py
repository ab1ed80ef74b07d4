"""What tests of whole models share: onnxruntime as the judge, data sets in the layout that `quantd test` reads, and the two
measures. Ends with status 77 when a package is missing."""
import os
import subprocess

from test_contrib import QUANTD, write

import numpy as np
import onnxruntime as ort

COSINE, ERROR = .99999, 1e-3  # of the output's range


def session(model):
    """model: a path or a ModelProto"""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    model = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def ranges(trials):
    """Of each output over all trials: how far its numbers reach; 0 where that says nothing (integers, constants)."""
    def one(arrays):
        arrays = [a.astype(np.float64) for a in arrays if a.dtype.kind == "f" and a.size]
        return max(a.max() for a in arrays) - min(a.min() for a in arrays) if arrays else 0.
    return [one(arrays) for arrays in zip(*trials)]


def telling(results, reach):
    """Whether a cosine of these results says anything: not of an output that is nearly 0 here (a map without a finding),
    where it would be the cosine of two noises."""
    return all(not r.size or r.dtype.kind != "f" or whole == 0 or np.abs(r.astype(np.float64)).max() >= ERROR * whole
               for r, whole in zip(results, reach))


def write_sets(folder, model, feeds, trials):
    """A folder of data sets as `quantd test` reads it."""
    for i, (given, results) in enumerate(zip(feeds, trials)):
        write(os.path.join(folder, "set"), model, given, results)
        os.rename(os.path.join(folder, "set", "test_data_set_0"), os.path.join(folder, f"test_data_set_{i}"))
        os.rename(os.path.join(folder, "set", "model.onnx"), os.path.join(folder, "model.onnx"))


def judge(folder, *arguments, timeout=300):
    """What `quantd test` says is wrong, or nothing."""
    run = subprocess.run([QUANTD, "test", *arguments, folder], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         timeout=timeout)
    lines = run.stdout.strip().splitlines() or ["nothing was printed"]
    return "" if run.returncode == 0 and lines[-1].startswith("1 passed, 0 failed, 0 skipped") else lines[0][:300]


def judge_fp32(root, name, model, feeds, trials, timeout=300):
    """What is wrong with quantd's answers in full precision, or nothing: by cosine, and by the largest error."""
    reach = ranges(trials)
    told = [i for i, results in enumerate(trials) if telling(results, reach)]
    if not told:
        return "no trial has an output to compare"
    everything, some = os.path.join(root, "all", name), os.path.join(root, "telling", name)
    write_sets(everything, model, feeds, trials)
    write_sets(some, model, [feeds[i] for i in told], [trials[i] for i in told])
    worst = ERROR * min([r for r in reach if r > 0] or [1])
    return (judge(some, "--cosine", str(COSINE), timeout=timeout)
            or judge(everything, "--rtol", "0", "--atol", repr(float(worst)), timeout=timeout))
