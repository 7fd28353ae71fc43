#!/usr/bin/env python3
"""Checks that each relative link in the Markdown files of a directory resolves, and leads into the tree: links.py DIRECTORY [TREE]."""

import os
import pathlib
import re
import sys

LINK = re.compile(r"\]\((?![a-z]+:|#)(?P<path>[^)#\s]+)")


def main():
    directory, tree = (pathlib.Path(os.path.abspath(path)) for path in (sys.argv[1], sys.argv[-1]))
    links = [(file, link["path"]) for file in directory.rglob("*.md") for link in LINK.finditer(file.read_text())]
    broken = [f"{file}: {path}" for file, path in links if not resolves(file.parent / path, tree)]
    if broken or not links:
        sys.exit("\n".join(["links that lead nowhere:", *broken]) if broken else f"no links in {directory}")
    print(f"{len(links)} links resolve")


def resolves(path, tree):
    # By the names: the tree may be a container's /proc/PID/root.
    path = pathlib.Path(os.path.normpath(path))
    return path.exists() and path.is_relative_to(tree)


main()
