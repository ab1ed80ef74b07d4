#!/usr/bin/env python3
"""Files that our documents point to exist: links of Markdown, and paths such as engine/engine.h in backticks."""
import os
import re

import common

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
PATH = re.compile(r"`((?:base|config|engine|server|clients|tests|docker|docs|make)/[\w./-]+\.\w+|\./[\w-]+\.sh)`")


def look(path, text):
    here = os.path.dirname(path)
    wanted = [(t, os.path.join(here, t)) for t in LINK.findall(text) if ":" not in t]
    wanted += [(t, t) for t in PATH.findall(text) if "_X." not in t]  # X stands for a name
    return [f"{path}: {text} is not there" for text, target in wanted
            if not os.path.exists(os.path.join(common.ROOT, target))]


def main():
    problems = []
    for path in common.files(".md"):
        problems += look(path, common.read(path))
    common.verdict("links", problems, look("docs/a.md", "[x](nowhere.md)") and look("a.md", "`engine/nowhere.c`"))


main()
