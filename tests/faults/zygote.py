"""A server that has everything imported and forks: a `luthier` process in milliseconds instead of seconds.

    python -m faults.zygote FD

FD is a SOCK_SEQPACKET socket; each message is one request as JSON, with three descriptors: standard output,
standard error, and where to report the end.

What runs in the fork is the real command in a process of its own: real signals, real exit codes.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

import tiny


def warm() -> None:
    """Import what a training needs, lazy parts too, and compute nothing that would start threads."""
    import peft  # noqa: F401
    import transformers

    import luthier.export.merge
    import luthier.infer.chat
    import luthier.infer.predict
    import luthier.train.run
    import luthier.train.setup  # noqa: F401

    for name, model, _ in (tiny.ARCHITECTURES["qwen3"], tiny.ARCHITECTURES["llama"]):
        getattr(transformers, name), getattr(transformers, model)
    transformers.AutoTokenizer, transformers.AutoModelForCausalLM  # noqa: B018


def child(request: dict[str, Any], fds: list[int]) -> None:
    """The forked process: never returns."""
    code = 70
    try:
        os.setsid()  # a signal to the test's group is not for it
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever this was started under (nohup, &)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(fds[0], 1)
        os.dup2(fds[1], 2)
        for fd in fds:
            os.close(fd)
        for name, value in request["env"].items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
        if request["cwd"]:
            os.chdir(request["cwd"])
        sys.argv = ["luthier", *request["words"]]
        if request["before"]:
            module, _, function = request["before"].partition(":")
            getattr(importlib.import_module(module), function)(*request["args"])
        from luthier.cli import main

        code = main(request["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # what Python itself would do: print and end with 1
        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                code = code or 120
        os._exit(code)


def serve(sock: socket.socket) -> None:
    """Fork for every request; tell each end through its descriptor. Ends when the other side closes."""
    running: dict[int, tuple[int, int]] = {}
    while True:
        ready, _, _ = select.select([sock, *running], [], [])
        for fd in [r for r in ready if r in running]:
            pid, report = running.pop(fd)
            os.close(fd)
            _, status = os.waitpid(pid, 0)
            os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(report)
        if sock not in ready:
            continue
        data, fds, _, _ = socket.recv_fds(sock, 1 << 20, 3)
        if not data:
            return
        pid = os.fork()
        if pid == 0:
            sock.close()
            for _, report in running.values():
                os.close(report)
            child(json.loads(data), fds)
        running[os.pidfd_open(pid)] = (pid, fds[2])
        os.close(fds[0])
        os.close(fds[1])
        sock.send(str(pid).encode())


if __name__ == "__main__":
    warm()
    serve(socket.socket(fileno=int(sys.argv[1])))
