#!/usr/bin/env python3
"""Every external symbol of our libraries begins with qd_ or quantd_, so that they can be linked into any program.
Looks at what was built: CHECK_BUILD (build)."""
import glob
import os
import re
import subprocess
import sys

import common

# Compilers and sanitizers add their own; main is main.
OURS = re.compile(r"^(qd_|quantd_|main$|__(asan|ubsan|tsan|odr_asan|gcov|x86|emutls)|__odr_asan_gen_)")


def look(where, names):
    return [f"{where}: external symbol {n} has no qd_ or quantd_ in front" for n in names if not OURS.match(n)]


def symbols(path):
    out = subprocess.run(["nm", "-g", "--defined-only", "--format=posix", path], check=True, text=True,
                         capture_output=True).stdout
    # "name type value size"; lines ending in a colon name an archive's member.
    return [line.split()[0] for line in out.splitlines() if line.strip() and not line.rstrip().endswith(":")]


def main():
    build = os.path.join(common.ROOT, os.environ.get("CHECK_BUILD", "build"))
    paths = glob.glob(build + "/*.a") + glob.glob(build + "/internal/server.a") + glob.glob(build + "/obj/server/main.o")
    if not paths:
        sys.exit("symbols: nothing is built, nothing to look at")
    problems = []
    seen = 0
    for path in paths:
        names = symbols(path)
        seen += len(names)
        problems += look(path, names)
    if not seen:
        problems.append("no symbol found at all")
    common.verdict("symbols", problems, look("sample.o", ["helper"]) and not look("sample.o", ["main", "qd_x"]))


main()
