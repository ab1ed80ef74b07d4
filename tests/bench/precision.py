#!/usr/bin/env python3
"""Automatic mixed precision on real models: each is served with a target, asked with its own samples over and over, and a line
says after how many requests the last plan came into force, how close it is, and what it costs.

    precision.py --models FOLDER [--only NAME]... [--target 0.999] [--requests 500] [--build build] [--json FILE]
                 [--write FILE] [--check]

The next request is sent when the one before has been measured in FP32, so that `requests` counts measured ones; /accuracy's
mean is over all requests of the last plan, `cosine` is that of every sample once more; both against FP32 in quantd.
--json: models measured earlier stay in FILE. --write: the table of all in FILE takes the place of what stands between
`<!-- precision -->` and `<!-- /precision -->`. --check: exit 1 when a model misses the target."""
import argparse
import json
import os
import re
import sys
import time

from models import use_environment

if __name__ == "__main__":
    use_environment()

import peers  # noqa: E402
from served import MODEL, Served, compare, samples, times, use_own_fp32  # noqa: E402


def wait_measured(server, last, seconds):
    """Until another request has been measured or another plan is in force; the report."""
    deadline = time.monotonic() + seconds
    while True:
        report = server.get(MODEL + "/accuracy")
        if report["sampled"] != last or not report["layers"] or time.monotonic() > deadline:
            return report
        time.sleep(0.001)


def teach(server, sets, requests):
    """(requests after which each plan came into force, the last report)."""
    plans, plan, sampled, report, slowest = [], server.get(MODEL + "/quantization")["plan"], 0, None, 10
    for k in range(requests):
        server.ask(sets[k % len(sets)])
        start = time.monotonic()
        report = wait_measured(server, sampled, max(1, 3 * slowest))  # one that met a change of plan is not measured
        if report["sampled"] > sampled:
            slowest = max(time.monotonic() - start, slowest if k else 0)
        sampled = report["sampled"]
        now = server.get(MODEL + "/quantization")["plan"]
        if now != plan:
            plans.append(k + 1)
            plan = now
    return plans, report


def layers(server):
    steps = [s for s in server.get(MODEL + "/quantization")["steps"] if s["weights"]]
    return "/".join(str(sum(s["precision"] == p for s in steps)) for p in ("int8", "int16", "fp32"))


def measure(build, folder, target, requests):
    path, sets = os.path.join(folder, "model.onnx"), samples(folder)
    flags = ("--shadow-rate", "1", "--target-cosine", str(target))
    with Served(build, path, *flags) as server, Served(build, path, "--precision", "int8") as int8:
        use_own_fp32(int8, sets)
        for k in range(24):
            int8.ask(sets[k % len(sets)])
        start = time.monotonic()
        plans, report = teach(server, sets, requests)
        seconds = time.monotonic() - start
        mean, least, top1 = compare(server, sets)
        mine, theirs = times([server, int8], sets)
        before, _, _ = compare(int8, sets)
        changes = server.get(MODEL + "/quantization")["changes"]
        return dict(model=os.path.basename(folder.rstrip("/")), requests=plans[-1] if plans else 0, plans=len(plans), moves=len(changes),
                    cosine=mean, least=least, top1=top1, served=report["cosine"]["mean"], int8=before, ratio=mine / theirs,
                    seconds=seconds, log=server.output(), layers=layers(server))


def met(r):
    """Nothing in integers: nothing to measure."""
    return (r["served"] is None or r["served"] >= r["target"]) and r["cosine"] >= r["target"]


def write(path, found):
    lines = ["| model | target | all INT8, cosine | served with the target | met after | changes of layers | int8 / int16 / fp32 | "
             "time to all INT8 |", "|---|---|---|---|---|---|---|---|"]
    for r in sorted(found, key=lambda r: r["model"]):
        after = f"{r['requests']} requests" if r["requests"] else "at once"
        after = after if met(r) else "missed"
        lines.append(f"| {r['model']} | {r['target']:g} | {r['int8']:.5f} | {r['cosine']:.5f} | {after} | {r['moves']} | "
                     f"{r['layers'].replace('/', ' / ')} | {r['ratio']:.2f} |")
    with open(path, encoding="utf-8") as f:
        text = f.read()
    made = "<!-- precision -->\n" + "\n".join(lines) + "\n<!-- /precision -->"
    new, places = re.subn(r"<!-- precision -->.*?<!-- /precision -->", lambda _: made, text, flags=re.S)
    if not places:
        sys.exit(f"{path} has no place for the table")
    with open(path, "w", encoding="utf-8") as f:
        f.write(new)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", required=True)
    parser.add_argument("--only", action="append")
    parser.add_argument("--target", type=float, default=0.999)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--build", default="build")
    parser.add_argument("--json")
    parser.add_argument("--write")
    parser.add_argument("--log", action="store_true", help="what the daemon says of its plans")
    parser.add_argument("--check", action="store_true")
    a = parser.parse_args()
    found, failed = [], 0
    print(f"{'model':24} {'met after':>9} {'plans':>5} {'moves':>5} {'int8 cos':>9} {'cosine':>9} {'served':>9} {'int8/int16/fp32':>16} "
          f"{'time/int8':>9}")
    for name in sorted(os.listdir(a.models)):
        folder = os.path.join(a.models, name)
        if not os.path.exists(os.path.join(folder, "model.onnx")) or (a.only and name not in a.only):
            continue
        try:
            r = measure(a.build, folder, a.target, a.requests)
        except peers.Refused as why:
            print(f"{name:24} {why}")
            failed += 1
            continue
        served = r["served"] if r["served"] is not None else 1.0
        r["target"] = a.target
        failed += not met(r)
        found.append({k: v for k, v in r.items() if k != "log"})
        print(f"{name:24} {r['requests']:>9} {r['plans']:>5} {r['moves']:>5} {r['int8']:9.6f} {r['cosine']:9.6f} {served:9.6f} "
              f"{r['layers']:>16} {r['ratio']:>9.2f} {'' if met(r) else ' MISSED'}", flush=True)
        if a.log:
            print("\n".join(line for line in r["log"].splitlines() if "model 'm'" in line))
    if a.json and os.path.exists(a.json):
        with open(a.json, encoding="utf-8") as f:
            found += [old for old in json.load(f) if old["model"] not in {r["model"] for r in found}]
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(found, f, indent=1)
    if a.write:
        write(a.write, found)
    return 1 if failed and a.check else 0


if __name__ == "__main__":
    sys.exit(main())
