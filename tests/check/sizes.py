#!/usr/bin/env python3
"""Refuses files that grew too long to be read: 600 lines of C or Python, 250 of a header. An exception needs a row
here with its reason; a row that is no longer needed is refused as well."""
import common

LIMITS = {".h": 250, ".c": 600, ".py": 600, ".sh": 300, "Makefile": 250, ".mk": 250}
ALLOWED = {  # path: reason
}


def limit(path):
    return next((n for ending, n in LIMITS.items() if path.endswith(ending)), None)


def look(path, lines):
    allowed = limit(path)
    if allowed is None:
        return []
    if lines > allowed and path not in ALLOWED:
        return [f"{path}: {lines} lines, {allowed} are allowed: split it"]
    if lines <= allowed and path in ALLOWED:
        return [f"{path}: short enough now; remove its row from tests/check/sizes.py"]
    return []


def main():
    problems = []
    for path in common.files(*LIMITS):
        problems += look(path, common.read(path).count("\n"))
    common.verdict("sizes", problems, look("a.h", 251) and look("a.c", 601) and not look("a.c", 600))


main()
