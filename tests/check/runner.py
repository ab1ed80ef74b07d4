#!/usr/bin/env python3
"""The test runner itself: what fails is counted as failed, whatever it prints, and nothing passes by doing nothing."""
import os
import sys

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests"))
import run  # noqa: E402

CMOCKA = "[ RUN      ] a\\n[       OK ] a\\n[ RUN      ] b\\n[  FAILED  ] b\\n[ RUN      ] c\\n[  SKIPPED ] c\\n"
LIST = "[  FAILED  ] 1 test(s), listed below:\\n[  FAILED  ] b\\n[  SKIPPED ] c\\n"
CASES = [  # kind, shell command, passed, failed, skipped
    ("script", "exit 0", 1, 0, 0),
    ("script", "echo ok; exit 1", 0, 1, 0),
    ("script", "kill -9 $$", 0, 1, 0),
    ("script", "echo SKIP: no network; exit 77", 0, 0, 1),
    ("script", "exit 77", 0, 1, 1),
    ("script", "echo 3 passed, 0 failed, 2 skipped", 3, 0, 2),
    ("script", "echo 3 passed, 1 failed", 3, 1, 0),
    ("script", "echo 3 passed, 0 failed; exit 1", 3, 1, 0),
    ("script", "sleep 9", 0, 1, 0),
    ("cmocka", f"printf '{CMOCKA}'; printf '{LIST}' >&2; exit 1", 1, 1, 1),
    ("cmocka", "printf '[ RUN      ] a\\n[       OK ] a\\n'; kill -SEGV $$", 1, 1, 0),
    ("script", 'f=${ASAN_OPTIONS#log_path=}; echo leak >"${f%%:*}.1"', 1, 1, 0),
    ("cmocka", "echo nothing; exit 0", 0, 1, 0),
]


def look(kind, command, *wanted):
    test = run.Test("sample", ["sh", "-c", command], kind, timeout=1).run()
    got = (test.passed, test.failed, test.skipped)
    return [] if got == wanted else [f"runner: {command!r} counts as {got}, should be {wanted}"]


def main():
    problems = []
    for case in CASES:
        problems += look(*case)
    common.verdict("runner", problems, look("script", "exit 1", 1, 0, 0))


main()
