"""What the checks share: the list of the project's files, and a verdict that was first proven able to fail.

A check calls `verdict(name, problems, sample)`; `sample` is the list of problems found in a tiny wrong example.
When the example passes as right, the check itself is broken and fails. Not for tests of the program."""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = ("base", "config", "engine", "server", "clients", "tests", "docker", "docs", "make", ".ci")


def files(*endings, under=FOLDERS):
    """Paths from the root of our own files with one of the endings (all when none is given), sorted."""
    found = []
    for folder in under:
        for place, folders, names in os.walk(os.path.join(ROOT, folder)):
            folders[:] = [f for f in folders if f not in ("build", "__pycache__", "node_modules", "corpus")]
            found += [os.path.relpath(os.path.join(place, n), ROOT) for n in names]
    if under is FOLDERS:
        found += [n for n in os.listdir(ROOT) if os.path.isfile(os.path.join(ROOT, n))]
    ignored = ignored_by_git(found)
    return sorted(f for f in found if (not endings or f.endswith(endings)) and f not in ignored)


def ignored_by_git(paths):
    """Generated files don't count; without git (a source archive) nothing is ignored."""
    try:
        run = subprocess.run(["git", "check-ignore", "--stdin", "-z"], input="\0".join(paths), cwd=ROOT, text=True,
                             capture_output=True)
    except OSError:
        return set()
    return set(run.stdout.split("\0"))


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def verdict(name, problems, sample):
    if not sample:
        sys.exit(f"{name}: BROKEN: a wrong sample was found right")
    for problem in problems:
        print(problem)
    if problems:
        sys.exit(f"{name}: {len(problems)} problem(s)")
    print(f"{name}: ok")


def skip(name, reason):
    print(f"SKIP: {name}: {reason}")
    sys.exit(77)
