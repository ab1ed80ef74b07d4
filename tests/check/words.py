#!/usr/bin/env python3
"""Refuses what must not be in a repository: paths of one machine, hosts of registries, notes for later, tabs and blanks at
the end of lines, conflict marks, large binaries."""
import os
import re

import common

ME = "tests/check/words.py"
RULES = [
    (re.compile(r"(?<![\w.$}/-])/(work|root|home|opt/wheels)/"), "a path of one machine"),
    (re.compile(r"(?<![\w$}])/tmp/[a-z]"), "a fixed name under /tmp: use mktemp"),
    (re.compile(r"\b(deb\.debian\.org|snapshot\.debian\.org|pythonhosted\.org|pypi\.org|ghcr\.io|quay\.io|docker\.io)\b"),
     "a registry's host: the user's own settings decide"),
    (re.compile(r"\b(TODO|FIXME|XXX|HACK)\b"), "a note for later: file an issue"),
    (re.compile(r"^(<<<<<<<|>>>>>>>) ", re.M), "a conflict mark"),
    (re.compile(r"[ \t]+$", re.M), "blanks at the end of a line"),
]
BINARY = (".onnx", ".pb", ".npy", ".png", ".gz", ".xz", ".bin")
MAX_BYTES = 512 * 1024


def look(path, text):
    problems = []
    for pattern, why in RULES:
        for hit in pattern.finditer(text):
            problems.append(f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {why} ({hit.group().strip()})")
    if text and not text.endswith("\n"):
        problems.append(f"{path}: no newline at the end")
    return problems


def main():
    problems = []
    for path in common.files():
        if os.path.getsize(os.path.join(common.ROOT, path)) > MAX_BYTES:
            problems.append(f"{path}: larger than {MAX_BYTES} bytes")
        if path != ME and not path.endswith(BINARY) and "/corpus" not in path and not path.startswith("tests/fuzz/seeds"):
            problems += look(path, common.read(path))
    sample = all(look("sample", text) for text in ("see /root/x\n", "# TODO\n", "a \n", "a", "/tmp/abc\n"))
    common.verdict("words", problems, sample)


main()
