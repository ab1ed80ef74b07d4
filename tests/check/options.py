#!/usr/bin/env python3
"""Every option of config/options.def explains itself, in its row and in `quantd serve --help`, and every --flag that our
documents and containers give to `quantd serve` exists."""
import os
import re
import subprocess

import common

ROW = re.compile(r"^QD_OPTION_(?!GROUP)[A-Z0-9_]+\((\w+),(.*)\)", re.M)
LIST = re.compile(r'^QD_OPTION_(?:MODELS|RULES)\((\w+), "([a-z-]+)",', re.M)  # its flag is the second argument
TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"\s*$')
USED = re.compile(r"\bserve\b[^\n`#]*")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)")
COMMAND_LINE_ONLY = {"config", "check-config", "help", "model"}


def explain(table):
    problems = []
    for key, rest in ROW.findall(table):
        text = TEXT.search(rest)
        if not text or len(text.group(1)) < 10:
            problems.append(f"config/options.def: {key} has no help")
    return problems


def flags_of(table):
    lists = dict(LIST.findall(table))
    return {lists.get(key, key.replace("_", "-")) for key, _ in ROW.findall(table)} | COMMAND_LINE_ONLY


def used(path, text, known):
    return [f"{path}: `quantd serve` has no --{flag}" for line in USED.findall(text.replace('", "', " "))
            for flag in FLAG.findall(line) if flag not in known]


def main():
    table = common.read("config/options.def")
    known = flags_of(table)
    problems = explain(table)
    for path in common.files(".md", ".yml", ".yaml", ".sh", ".in", "Dockerfile"):
        problems += used(path, common.read(path), known)
    program = os.path.join(common.ROOT, os.environ.get("CHECK_BUILD", "build"), "quantd")
    if os.path.exists(program):
        text = subprocess.run([program, "serve", "--help"], capture_output=True, text=True, timeout=20).stdout
        problems += [f"quantd serve --help does not name --{flag}" for flag in sorted(known - COMMAND_LINE_ONLY)
                     if not re.search(rf"--{flag}\b", text)]
    common.verdict("options", problems, len(ROW.findall(table)) > 5 and explain('QD_OPTION_BOOL(x, false, "")')
                   and used("a.md", "quantd serve --no-such-flag", known))


main()
