#!/usr/bin/env python3
"""Every header compiles alone, twice in a row and without a warning. Flags are the Makefile's."""
import os
import shlex
import subprocess

import common

MAKE = subprocess.run(["make", "-s", "--no-print-directory", "check-flags"], cwd=common.ROOT, text=True, check=True,
                      capture_output=True).stdout
FLAGS = dict(line.split("=", 1) for line in MAKE.splitlines() if "=" in line)


def look(path, text):
    isa = FLAGS.get(os.path.basename(os.path.dirname(path)), "")
    run = subprocess.run([FLAGS["CC"], *shlex.split(FLAGS["CFLAGS"]), *shlex.split(isa), "-fsyntax-only", "-x", "c", "-"],
                         input=text, cwd=common.ROOT, text=True, capture_output=True)
    return [] if run.returncode == 0 else [f"{path}: not self-contained:\n{run.stderr.strip()}"]


def main():
    problems = []
    for path in common.files(".h"):
        problems += look(path, f'#include "{path}"\n#include "{path}"\n')
    common.verdict("headers", problems, look("sample.h", "size_t sample(void);\n"))


main()
