#!/usr/bin/env python3
"""Every C file is as clang-format 14 with .clang-format would write it (`make format` does)."""
import shutil
import subprocess

import common


def look(tool, *arguments, **more):
    run = subprocess.run([tool, "--dry-run", "-Werror", "--style=file", *arguments], cwd=common.ROOT, text=True,
                         capture_output=True, **more)
    places = {}
    for line in run.stderr.splitlines():
        if ": error: " in line:
            places.setdefault(line.split(":")[0], []).append(line.split(":")[1])
    if run.returncode and not places:
        return [run.stderr]
    return [f"{path}: not as `make format` writes it, line {', '.join(sorted(set(at), key=int)[:8])}"
            for path, at in places.items()]


def main():
    tool = shutil.which("clang-format-14")
    if not tool:
        common.skip("format", "clang-format-14 is not installed (other versions format differently)")
    sample = look(tool, "--assume-filename=base/sample.c", input="int  main( void ){return 0 ;}\n")
    common.verdict("format", look(tool, *common.files(".c", ".h")), sample)


main()
