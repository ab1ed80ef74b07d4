#!/usr/bin/env python3
"""Runs `quantd test` on the standard's node tests and fails when one of required.txt is not passed. Makes the tests first
(make_nodes.py, needs the pinned onnx package) unless a folder that holds them is given. Only required tests can fail:
of the others, what doesn't pass is printed and counts as skipped.

    check.py [FOLDER] [--grow]     --grow adds what passes now to required.txt; nothing is ever taken off"""
import argparse
import os
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
REQUIRED = os.path.join(HERE, "required.txt")
LINE = re.compile(r"^\W*(ok|pass|fail|skip)\w*\W+(?:\S*/)?(test_\w+)", re.I)


def required():
    with open(REQUIRED, encoding="utf-8") as f:
        return [line.strip() for line in f if line.strip() and not line.startswith("#")]


def verdicts(quantd, folders):
    """{name: (word, line)} of the tests that `quantd test` printed a line for."""
    found = {}
    for i in range(0, len(folders), 200):
        run = subprocess.run([quantd, "test", "--precision", "fp32", *folders[i:i + 200]], text=True, errors="replace",
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode not in (0, 1):
            print(run.stdout)
            sys.exit(f"quantd test ended with {run.returncode}, near {os.path.basename(folders[i])}")
        for line in run.stdout.splitlines():
            match = LINE.match(line)
            if match:
                found[match.group(2)] = (match.group(1).lower(), line)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--grow", action="store_true")
    options = parser.parse_args()
    folder = options.folder or os.path.join(ROOT, "build", "nodes")
    if not options.folder:
        try:
            import onnx  # noqa: F401
        except ImportError:
            print("SKIP: the node tests are made by the onnx package, which this Python doesn't have")
            sys.exit(77)
        import make_nodes
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{len(make_nodes.make(folder))} node tests made in {os.path.relpath(folder, ROOT)}")
    quantd = os.environ.get("QUANTD", os.path.join(ROOT, "build", "quantd"))
    names = sorted(n for n in os.listdir(folder) if os.path.exists(os.path.join(folder, n, "model.onnx")))
    found = verdicts(quantd, [os.path.join(folder, n) for n in names])
    passed = {n for n, (word, _) in found.items() if word in ("ok", "pass")}
    needed = required()
    failed = [n for n in needed if n not in passed]
    others = [n for n in names if n not in passed and n not in needed]
    for name in others:
        print(f"not required: {found[name][1] if name in found else name + ': no verdict'}")
    for name in failed:
        print(f"required: {found[name][1] if name in found else name + ': not there, or no verdict'}")
    more = sorted(passed - set(needed))
    if more and options.grow:
        with open(REQUIRED, "a", encoding="utf-8") as f:
            f.write("".join(name + "\n" for name in more))
    elif more:
        print(f"{len(more)} tests pass that required.txt doesn't list yet: check.py --grow adds them")
    print(f"{len(passed)} passed, {len(failed)} failed, {len(others)} skipped")
    sys.exit(1 if failed or not needed else 0)


main()
