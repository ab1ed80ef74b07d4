#!/usr/bin/env python3
"""Finds and runs the tests, and ends with the line `N passed, N failed, N skipped`; exit 1 on any failure.

    python3 tests/run.py [--checks] [--build build]... [--only TEXT]... [--list]

--checks     the scripts of tests/check (what `make check` runs)
--build DIR  the tests of that build: cmocka programs, fuzz inputs, `quantd test` on node tests, scripts of tests/e2e.
             Given several times, each build gets them all (a script with the line `# builds: plain` only the first).
--only TEXT  only tests whose name holds one of the texts

A cmocka program counts as many as it has tests. A script counts one, or what its own last summary line says; it skips
by exit status 77 with the reason on a line `SKIP: reason`. Scripts find the programs by QUANTD, QUANTCTL and
TEST_BUILD, run in the repository's root, and may take 300 s or what a line `# timeout: N` says. Needs only Python.
"""
import argparse
import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SUMMARY = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?\.?$", re.M)
CMOCKA = re.compile(r"^\[ +(RUN|OK|SKIPPED) +\] ", re.M)  # on standard output; its lists go to standard error
TIMEOUT = re.compile(r"^(?:#|//) timeout: (\d+)", re.M)
PLAIN_ONLY = re.compile(r"^# builds: plain\b", re.M)
SHOWN_LINES = 120
FUZZ_MORE = ["--flips", "tests/fuzz/corpus/model/conv_chain.onnx", "--mutants", "60"]  # tests/fuzz/replay.c
FUZZ_STATE = ["--flips", "tests/fuzz/corpus/state/small.json"]


class Test:
    def __init__(self, name, command, kind, env=None, timeout=300, alone=False):
        self.name, self.command, self.kind = name, command, kind
        self.env, self.timeout, self.alone = env or {}, timeout, alone
        self.passed = self.failed = self.skipped = 0
        self.output, self.why, self.seconds = "", "", 0.0

    def run(self):
        """Runs it. Whatever a sanitizer reports, from a daemon that the test started too, makes it fail."""
        with tempfile.TemporaryDirectory(prefix="quantd-test-") as reports:
            where = f"log_path={reports}/report:print_stacktrace=1"
            self.env = {"ASAN_OPTIONS": where, "UBSAN_OPTIONS": where, "TSAN_OPTIONS": where + ":second_deadlock_stack=1",
                        "LSAN_OPTIONS": where, **self.env}
            self.run_once()
            for name in sorted(os.listdir(reports)):
                with open(os.path.join(reports, name), encoding="utf-8", errors="replace") as f:
                    self.output += f"\n{f.read()}"
                self.failed, self.why = max(1, self.failed), "a sanitizer reported"
        return self

    def run_once(self):
        start = time.monotonic()
        try:
            process = subprocess.Popen(self.command, cwd=ROOT, env={**os.environ, **self.env}, text=True, errors="replace",
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True,
                                       stderr=subprocess.PIPE if self.kind == "cmocka" else subprocess.STDOUT)
            try:
                self.output, errors = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                self.output, errors = process.communicate()
                self.output += errors or ""
                self.failed, self.why = 1, f"no end after {self.timeout} s"
                return
            self.judge(process.returncode)
            self.output += errors or ""
        except OSError as error:
            self.failed, self.why = 1, str(error)
        finally:
            self.seconds = time.monotonic() - start
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what a script left running
            except (ProcessLookupError, UnboundLocalError):
                pass

    def judge(self, status):
        reasons = re.findall(r"^SKIP: (.*)$", self.output, re.M)
        if self.kind == "cmocka":
            marks = CMOCKA.findall(self.output)
            self.passed, self.skipped = marks.count("OK"), marks.count("SKIPPED")
            self.failed = max(0, marks.count("RUN") - self.passed - self.skipped)  # a test that only began has failed
        elif status == 77:
            self.skipped = 1
        else:
            sums = SUMMARY.findall(self.output)
            if sums:
                self.passed, self.failed, self.skipped = (int(n or 0) for n in sums[-1])
            elif status == 0:
                self.passed = 1
        if status == 77 and not reasons:
            self.failed, self.why = self.failed + 1, "skipped without a line `SKIP: reason`"
        elif status not in (0, 77) and not self.failed:
            how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            self.failed, self.why = 1, how
        elif status == 0 and not self.passed + self.failed + self.skipped:
            self.failed, self.why = 1, "ran no test"
        elif status == 0 and self.failed and not self.why:
            self.why = "says so, but its exit status is 0: the test is broken"
        if self.skipped and not self.why:
            self.why = "; ".join(reasons)

    def line(self):
        word = "FAIL" if self.failed else "skip" if self.skipped and not self.passed else "ok"
        more = f" ({self.passed}" + (f", {self.failed} failed" if self.failed else "") + (
            f", {self.skipped} skipped" if self.skipped else "") + ")"
        return f"{word:4} {self.name}{more} {self.seconds:.1f} s" + (f": {self.why}" if self.why else "")


def python():
    own = os.path.join(ROOT, "build", "venv", "bin", "python3")
    return own if os.access(own, os.X_OK) else sys.executable


def text_of(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def timeout_of(path, slow):
    named = TIMEOUT.search(text_of(path))
    return (int(named.group(1)) if named else 300) * slow


def find(*patterns):
    return sorted(os.path.relpath(p, ROOT) for pattern in patterns
                  for p in glob.glob(os.path.join(ROOT, pattern), recursive=True))


def checks(build):
    return [Test(p, [sys.executable, p], "check", {"CHECK_BUILD": build})
            for p in find("tests/check/*.py") if not p.endswith("/common.py")]


def programs(build, slow):
    tests = []
    for source in find("tests/unit/test_*.c", "tests/kernels/test_*.c"):
        program = os.path.join(build, source[:-2])
        tests.append(Test(program, [os.path.abspath(program)], "cmocka", timeout=timeout_of(source, slow)))
    for source in find("tests/fuzz/fuzz_*.c"):
        program = os.path.join(build, source[:-2])
        target = os.path.basename(program)[len("fuzz_"):]
        corpus = "tests/fuzz/corpus/" + target
        more = FUZZ_MORE if target in ("onnx", "model") else FUZZ_STATE if target == "state" else []
        tests.append(Test(program + " on " + corpus, [os.path.abspath(program), *more, corpus], "script", timeout=300 * slow))
    return tests


def scripts(build, first, slow):
    # Every answer of a daemon that is stopped by a sanitizer would look like a lost connection: it must say so itself.
    env = {"TEST_BUILD": os.path.abspath(build), "QUANTD": os.path.abspath(os.path.join(build, "quantd")),
           "QUANTCTL": os.path.abspath(os.path.join(build, "quantctl")), "PYTHON": python(), "PYTHONUNBUFFERED": "1",
           "TEST_SLOW": str(slow),
           "QUANTD_PRECISION": "int8"}  # not by time: what runs in which precision must not depend on the machine
    tests = []
    for path in find("tests/e2e/test_*.py", "tests/e2e/http_*.py", "tests/e2e/*.sh", "tests/nodes/test_*.py",
                     "tests/nodes/test_*.sh", "tests/digits/test_*.py", "tests/zoo/test_*.py", "tests/zoo/test_*.sh",
                     "clients/*/tests/test_*.py", "clients/*/tests/test_*.sh"):
        if PLAIN_ONLY.search(text_of(path)) and not first:
            continue
        command = [python(), path] if path.endswith(".py") else ["sh" if "bash" not in text_of(path)[:30] else "bash", path]
        tests.append(Test(f"{build}: {path}", command, "script", env, timeout_of(path, slow), alone=True))
    return tests


def models(build, first, slow):
    """Folders in the layout of the standard's node tests, run by `quantd test`: ours made by `make nodes`, and real models."""
    quantd, tests = os.path.abspath(os.path.join(build, "quantd")), []
    folders = sorted(os.path.dirname(p) for p in find("build/nodes/**/model.onnx"))
    if find("tests/nodes/*.py"):
        command = [quantd, "test", "--precision", "fp32", *folders]
        if find("tests/nodes/check.py"):
            command = [python(), "tests/nodes/check.py", "build/nodes"]
        if not folders:  # ./quickstart.sh test makes them, or fails
            command = ["sh", "-c", "echo 'SKIP: build/nodes is empty: make nodes, which needs the pinned onnx package'; exit 77"]
        tests.append(Test(f"{build}: the node tests in build/nodes", command, "script", {"QUANTD": quantd}, 300 * slow))
    if first:
        zoo = os.environ.get("ZOO")
        command = ["sh", "-c", "echo 'SKIP: no ZOO=folder given: no real models were run'; exit 77"]
        if zoo:
            command = [quantd, "test", "--precision", "fp32",
                       *sorted(os.path.dirname(p) for p in glob.glob(os.path.join(zoo, "*", "model.onnx")))]
        tests.append(Test("quantd test on the models of ZOO", command, "script", timeout=3600))
    return tests


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--checks", action="store_true")
    parser.add_argument("--build", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    tests = checks((options.build or ["build"])[0]) if options.checks else []
    for i, build in enumerate(options.build):
        slow = 1 if i == 0 else 4  # a sanitizer's build is several times slower
        tests += programs(build, slow) + models(build, i == 0, slow) + scripts(build, i == 0, slow)
    tests = [t for t in tests if not options.only or any(text in t.name for text in options.only)]
    if options.list:
        print("\n".join(t.name for t in tests))
        return 0
    done = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        # What measures time or opens ports runs alone, after what does not.
        for test in pool.map(Test.run, [t for t in tests if not t.alone]):
            done.append(test)
            print(test.line(), flush=True)
    for test in (t for t in tests if t.alone):
        done.append(test.run())
        print(test.line(), flush=True)
    for test in (t for t in done if t.failed):
        lines = test.output.rstrip().splitlines()
        print(f"\n---------------- {test.name}: {test.why or 'failed'}")
        if len(lines) > SHOWN_LINES:
            print(f"[{len(lines) - SHOWN_LINES} lines before]")
        print("\n".join(lines[-SHOWN_LINES:]))
    for test in (t for t in done if t.skipped):
        print(f"SKIPPED: {test.name}: {test.why or 'see its output'}")
    passed, failed, skipped = (sum(getattr(t, w) for t in done) for w in ("passed", "failed", "skipped"))
    if not passed + failed:
        print("no test was found")
        failed = 1
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
