"""What no file of the project may do, read off its syntax tree: run code from a string, a file or a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "jsonpickle", "shelve", "marshal",
    "requests", "urllib.request", "httpx", "aiohttp", "telnetlib", "ftplib", "runpy", "code", "codeop",
}  # fmt: skip
# References, not only calls: `map(eval, rows)` calls it, too.
NAMES = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("os.system", "os.popen", "os.startfile", "tempfile.mktemp", "asyncio.create_subprocess_shell"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.subprocess.create_subprocess_shell"),
    *("torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.serialization.load"),
    *("pandas.read_pickle", "pandas.to_pickle", "pandas.eval", "pty.spawn"),
    *(f"yaml.{loader}" for loader in ("Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader")),
    *(f"yaml.{load}" for load in ("load", "load_all", "full_load", "full_load_all", "unsafe_load")),
    *("yaml.unsafe_load_all", "yaml.YAMLObject", "yaml.CUnsafeLoader", "yaml.add_constructor"),
}
STARTS = {"run", "Popen", "call", "check_call", "check_output"}
SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "csh", "tcsh", "fish", "cmd", "cmd.exe", "powershell", "pwsh"}
Found = Iterator[tuple[int, str]]


def forbidden(tree: ast.Module) -> Found:
    """(line, what) of each offence."""
    known = aliases(tree)
    assigned = _assigned(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield from _reference(node, known)
        elif isinstance(node, ast.Call):
            yield from _call(node, known, assigned)
        elif isinstance(node, ast.List | ast.Tuple):
            yield from _shell(node, node.elts)


def aliases(tree: ast.AST) -> dict[str, str]:
    """Name in the file -> what it was imported as: `import numpy as np` and `from os import system as s`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update({a.asname: a.name for a in node.names if a.asname})
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return found


def name(node: ast.AST, known: dict[str, str] | None = None) -> str:
    """`os.system` for the expression os.system, aliases looked through; "" for what is no dotted name."""
    if isinstance(node, ast.Name):
        return (known or {}).get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := name(node.value, known)):
        return f"{before}.{node.attr}".removeprefix("builtins.")
    return ""


def _imports(node: ast.Import | ast.ImportFrom) -> Found:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    else:
        modules = [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]
    for module in modules:
        parts = module.split(".")
        above = {".".join(parts[:k]) for k in range(1, len(parts) + 1)}
        if above & MODULES or module in NAMES:
            yield node.lineno, f"import {module if module in NAMES else min(above & MODULES)}"


def _reference(node: ast.Name | ast.Attribute, known: dict[str, str]) -> Found:
    found = name(node, known)
    if found in NAMES:
        yield node.lineno, found
    family, _, function = found.rpartition(".")
    if family == "os" and function.startswith(("exec", "spawn", "posix_spawn")):
        yield node.lineno, found


def _call(node: ast.Call, known: dict[str, str], assigned: dict[str, list[ast.expr]]) -> Found:
    called = name(node.func, known)
    for keyword in node.keywords:
        off = isinstance(keyword.value, ast.Constant) and not keyword.value.value
        if keyword.arg in ("shell", "allow_pickle") and not off:
            yield node.lineno, f"{called}({keyword.arg}=)"
    yield from _shell(node, node.args)
    module, _, function = called.rpartition(".")
    if module == "subprocess" and function in STARTS:
        given = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "args")]
        if any(_text(command, assigned) for command in given):
            yield node.lineno, f"{called}(text)"
    if called == "getattr" and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
        found = f"{name(node.args[0], known)}.{node.args[1].value}".removeprefix("builtins.")
        if found in NAMES:
            yield node.lineno, found


def _shell(node: ast.expr, words: list[ast.expr]) -> Found:
    """`["sh", "-c", …]`, and the same words as arguments of a call."""
    first = [w.value if isinstance(w, ast.Constant) else None for w in words[:2]]
    if len(first) == 2 and isinstance(first[0], str) and isinstance(first[1], str):
        option = first[1].lower()
        is_shell = first[0].replace("\\", "/").rsplit("/", 1)[-1].lower() in SHELLS
        if is_shell and (option in ("/c", "/k", "-command") or (option[:1] == "-" and "c" in option)):
            yield node.lineno, "a command for a shell"


def _assigned(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """Variable -> what is assigned to it anywhere in the file."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(name(target), []).append(node.value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            found.setdefault(name(node.target), []).append(node.value)
    return found


def _text(node: ast.expr, assigned: dict[str, list[ast.expr]]) -> bool:
    """Whether an expression is a text: a literal, an f-string, a sum with one, `.format`, `.join`, str()."""
    if isinstance(node, ast.Name):
        values = assigned.get(node.id, [])
        return any(_text(value, {}) for value in values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, assigned) or _text(node.right, assigned)
    if isinstance(node, ast.Call):
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        return name(node.func) in ("str", "shlex.join") or method in ("format", "join")
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return literal or isinstance(node, ast.JoinedStr)
