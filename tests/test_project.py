"""Rules of the whole project, read off the syntax trees of its sources."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from forbidden import forbidden, name

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EVERYTHING = SOURCES + TESTS
SCRIPTS = sorted(p for top in ("benchmarks", "recipes", "tools", "docs") for p in (ROOT / top).rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

# The one file that makes hostile files needs what makes them.
MAKES_ATTACKS = ROOT / "tests" / "faults" / "payload.py"
# The one file that asks a server, which the user names.
ASKS_SERVERS = "src/luthier/infer/endpoint.py", "import urllib.request"
LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 6


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


OFFENCES = [
    ("import pickle", "import pickle"),
    ("from joblib import dump", "import joblib"),
    ("import urllib.request", "import urllib.request"),
    ("from urllib import request", "import urllib.request"),
    ("def f():\n    import requests", "import requests"),
    ("from torch import load", "import torch.load"),
    ("import torch\ndef f(p):\n    return torch.load(p, weights_only=True)", "torch.load"),
    ("import torch as t\nt.load(p)", "torch.load"),
    ("from torch import jit\njit.load(p)", "torch.jit.load"),
    ("eval('1')", "eval"),
    ("map(eval, rows)", "eval"),
    ("import builtins\nbuiltins.exec(t)", "exec"),
    ("compile(t, '', 'exec')", "compile"),
    ("__import__(n)", "__import__"),
    ("import os\nos.system('ls')", "os.system"),
    ("from os import popen as p", "import os.popen"),
    ("import os as o\nf = o.popen", "os.popen"),
    ("import os\ngetattr(os, 'system')('ls')", "os.system"),
    ("import os\nos.execvp('sh', [])", "os.execvp"),
    ("import os\nos.spawnl(0, 'sh')", "os.spawnl"),
    ("import subprocess\nsubprocess.run('ls', shell=True)", "subprocess.run(shell=)"),
    ("import subprocess\nsubprocess.run(words, shell=flag)", "subprocess.run(shell=)"),
    ("import subprocess\nsubprocess.run('ls')", "subprocess.run(text)"),
    ("import subprocess as s\ns.Popen(args=f'ls {x}')", "subprocess.Popen(text)"),
    ("from subprocess import check_output\ncheck_output('ls ' + x)", "subprocess.check_output(text)"),
    ("import subprocess\nc = 'ls {}'.format(x)\nsubprocess.call(c)", "subprocess.call(text)"),
    ("import subprocess\nc = ' '.join(w)\nsubprocess.call(c)", "subprocess.call(text)"),
    ("import subprocess\nsubprocess.getoutput(c)", "subprocess.getoutput"),
    ("import subprocess\nsubprocess.run(['/bin/sh', '-c', t])", "a command for a shell"),
    ("words = ('bash', '-lc', t)", "a command for a shell"),
    ("asyncio.create_subprocess_exec('sh', '-c', t)", "a command for a shell"),
    ("words = ['cmd.exe', '/c', t]", "a command for a shell"),
    ("import asyncio\nasyncio.create_subprocess_shell(t)", "asyncio.create_subprocess_shell"),
    ("import yaml\nyaml.load(t)", "yaml.load"),
    ("import yaml\nyaml.load(t, Loader=yaml.SafeLoader)", "yaml.load"),
    ("import yaml\nclass L(yaml.FullLoader): ...", "yaml.FullLoader"),
    ("from yaml import unsafe_load", "import yaml.unsafe_load"),
    ("import tempfile\ntempfile.mktemp()", "tempfile.mktemp"),
    ("np.load(p, allow_pickle=True)", "np.load(allow_pickle=)"),
]
INNOCENT = """
import subprocess, re, sys, yaml
model.eval()
re.compile("a")
yaml.safe_load(text), yaml.SafeLoader
command = [sys.executable, "-c", code]
subprocess.run(command, shell=False), subprocess.run([*command, "-c"], text=True)
np.load(path, allow_pickle=False)
"""


@pytest.mark.parametrize(("code", "what"), OFFENCES)
def test_the_check_finds_what_it_looks_for(code: str, what: str) -> None:
    assert what in [found for _, found in forbidden(ast.parse(code))]


def test_the_check_lets_pass_what_is_harmless() -> None:
    assert list(forbidden(ast.parse(INNOCENT))) == []


def test_nothing_runs_code_from_a_file_a_string_or_a_shell() -> None:
    checked = [p for p in [*EVERYTHING, *SCRIPTS] if p != MAKES_ATTACKS]
    assert SOURCES and TESTS and SCRIPTS
    found = [(place(p, line), what) for p in checked for line, what in forbidden(parse(p))]
    assert [one for one in found if (one[0].partition(":")[0], one[1]) != ASKS_SERVERS] == []


def test_files_functions_and_parameters_stay_small() -> None:
    found = []
    for path in EVERYTHING:
        length = len(path.read_text("utf-8").splitlines())
        if length > LINES:
            found.append(f"{place(path, 1)} has {length} lines (at most {LINES})")
        for node in functions(parse(path)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            spec = node.args
            own = [a.arg for a in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
            count = len([a for a in own if a not in ("self", "cls")])
            if lines > FUNCTION_LINES:
                found.append(
                    f"{place(path, node.lineno)} {node.name} has {lines} lines (at most {FUNCTION_LINES})"
                )
            if count > PARAMETERS:
                found.append(
                    f"{place(path, node.lineno)} {node.name} has {count} parameters (at most {PARAMETERS})"
                )
    assert found == []


def asserts(function: Function, helpers: set[str]) -> bool:
    """An assert, pytest.raises, .fail or numpy's/torch's assert_…, here or in a helper of the same file."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            last = name(node.func).rsplit(".", 1)[-1]
            if last in ("raises", "warns", "fail") or last.startswith("assert_") or last in helpers:
                return True
    return False


def test_every_test_asserts_something() -> None:
    silent = []
    for path in TESTS:
        tree = parse(path)
        helpers = {f.name for f in functions(tree) if not f.name.startswith("test_") and asserts(f, set())}
        for node in functions(tree):
            if node.name.startswith("test_") and not asserts(node, helpers):
                silent.append(f"{place(path, node.lineno)} {node.name}")
    assert silent == []


def test_no_test_sleeps() -> None:
    calls = [(p, n) for p in TESTS for n in ast.walk(parse(p)) if isinstance(n, ast.Call)]
    assert [place(p, n.lineno) for p, n in calls if name(n.func) in ("time.sleep", "sleep")] == []


def test_no_path_of_one_machine() -> None:
    machine = re.compile(r"[\"'(\s=](/(?:home|root|work|Users|mnt)/\w|/tmp/\w|[A-Z]:\\\\Users)")
    files = [*EVERYTHING, *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.yaml")]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / ".ci" / "run"]
    lines = [(p, i, text) for p in files for i, text in enumerate(p.read_text("utf-8").splitlines(), 1)]
    assert [f"{place(p, i)} {text.strip()}" for p, i, text in lines if machine.search(text)] == []


def test_every_pinned_version_is_exact() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [line for line in pins if not re.match(r"[a-z0-9.-]+==[0-9][\w.]*( ;|$)", line)] == []


HEAVY = ("torch", "transformers", "peft", "accelerate", "pyarrow", "matplotlib", "jieba")
LIGHT = f"""
import sys
from luthier.cli import main
code = 0
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("loaded:", *[name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""


@pytest.mark.parametrize(("args", "code"), [(["version"], 0), (["--help"], 0), (["trian"], 2), ([], 0)])
def test_help_and_mistakes_load_nothing_heavy(args: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, *args], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr
    assert done.returncode == code
    if args == ["trian"]:
        assert "train" in done.stdout + done.stderr


@pytest.mark.parametrize("module", ["config", "runs.cli", "types", "errors"])
def test_rooms_without_a_model_library(module: str) -> None:
    code = f"import sys, luthier.{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
