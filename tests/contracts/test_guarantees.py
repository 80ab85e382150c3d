"""What docs/guarantees.md promises has a test, and the test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def promises() -> list[str]:
    """List the points of all sections but the last."""
    promised = TEXT.partition("## Not promised")[0]
    return re.findall(r"^- (.*(?:\n  .*)*)", promised, re.MULTILINE)


def test_every_promise_names_a_test() -> None:
    assert len(promises()) > 30
    assert [promise for promise in promises() if not NAMED.search(promise)] == []


def test_every_named_test_exists() -> None:
    missing = []
    for file, name in NAMED.findall(TEXT):
        path = ROOT / file
        tree = ast.parse(path.read_text()) if path.is_file() else ast.Module([], [])
        if name not in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{file}::{name}")
    assert missing == []


def test_every_fault_test_proves_something_that_is_promised() -> None:
    named = {name for file, name in NAMED.findall(TEXT) if file.startswith("tests/faults/")}
    about_the_tests = {"test_story.py", "test_chaos.py"}
    unnamed = [
        f"{path.name}::{node.name}"
        for path in sorted((ROOT / "tests" / "faults").glob("test_*.py"))
        if path.name not in about_the_tests
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and node.name not in named
    ]
    assert unnamed == []
