"""llama.cpp behind the protocol of an engine: the door to GGUF files (`luthier chat FILE.gguf`).

A file is opened by llama.cpp's own server in a process of its own, on a loopback port under a random key.
What it tokenises, renders and answers is therefore what Ollama, Jan and LM Studio do with the file.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from luthier.errors import MissingPackage, ModelError, UsageError
from luthier.gguf import read
from luthier.infer.engine import Generation, Progress

if TYPE_CHECKING:
    from luthier.types import Message

SLOTS = 4
"""Prompts answered together; each slot keeps the prompt it had last, so a shared prefix is computed once."""
_LARGEST = 1 << 30  # bytes of a reply; a whole distribution over 256 k tokens is 30 MB


class LlamaCpp:
    """One GGUF file, open for answering. context: tokens that prompt and answer may have together.

    architecture: its name in GGUF · vocabulary: number of tokens · letter: a token that ends nothing.
    Satisfies `engine.Engine`; close() (or leaving `with`) ends its process.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        context: int = 0,
        slots: int = SLOTS,
        threads: int = 0,
        exact: bool = False,
        lora: str | Path | None = None,
    ) -> None:
        """context: 0 takes what the model was trained with · threads: 0 takes the cores · exact: float32 keys
        and values and no flash attention, for comparing · lora: an adapter as GGUF, laid over the model.
        Raises ModelError, MissingPackage."""
        header = read.header(path)
        longest = int(header.metadata[f"{header.architecture}.context_length"])
        self.path = Path(path)
        self.context = min(context or longest, longest)
        self.architecture = header.architecture
        tokens = header.metadata["tokenizer.ggml.tokens"]
        self.vocabulary = len(tokens)
        self.letter = next((i for i, text in enumerate(tokens) if text in string.ascii_letters and text), 0)
        self.timings: dict[str, float] = {"prompt_tokens": 0, "prompt_ms": 0, "tokens": 0, "ms": 0}
        self._slots = slots
        self._key = secrets.token_hex(16)
        settings = {
            "path": str(self.path.resolve()),
            "key": self._key,
            "slots": slots,
            "context": self.context,
            "threads": threads or _cores(),
            "exact": exact,
            "gpu_layers": 0 if exact else -1,
            "lora": None if lora is None else str(Path(lora).resolve()),
        }
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as the process
        self._process, self._port = _started(settings, self._log, self.path)

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; later calls do nothing."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._log.close()

    # What an engine does

    def generate(
        self, prompts: Sequence[Sequence[int]], options: Generation, progress: Progress | None = None
    ) -> list[list[int]]:
        """Answers in tokens, in the order of the prompts; several are answered at a time."""
        found: list[list[int]] = [[] for _ in prompts]
        with ThreadPoolExecutor(self._slots) as pool:
            asked = {pool.submit(self._answer, list(p), options, i): i for i, p in enumerate(prompts)}
            try:
                for done in as_completed(asked):
                    i = asked[done]
                    found[i] = done.result()
                    if progress is not None:
                        progress(i, found[i])
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def stream(self, prompt: Sequence[int], options: Generation) -> Iterator[int]:
        """The answer token by token, without the one that ends it."""
        body = {**self._body(list(prompt), options, 0), "stream": True}
        connection, response = self._open("/completion", body)
        with contextlib.closing(connection):
            for line in response:
                if line.startswith(b"data: "):
                    told = json.loads(line[6:])
                    self._refused(told)
                    self._time(told)
                    for token in told.get("tokens") or []:
                        if token in options.stop_ids:
                            return
                        yield int(token)

    def tokenize(self, text: str, special: bool = True, begin: bool = False) -> list[int]:
        """special: texts of control tokens become these · begin: with what the tokenizer puts before it."""
        body = {"content": text, "add_special": begin, "parse_special": special}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def detokenize(self, ids: Sequence[int]) -> str:
        return str(self._post("/detokenize", {"tokens": list(ids)})["content"])

    def apply_template(self, messages: Sequence[Message], tools: Sequence[Any] = (), **variables: Any) -> str:
        """The prompt as the file's own chat template writes it, by llama.cpp's Jinja."""
        body: dict[str, Any] = {"messages": [_message(message) for message in messages]}
        if tools:
            body["tools"] = list(tools)
        if variables:
            body["chat_template_kwargs"] = variables
        return str(self._post("/apply-template", body)["prompt"])

    def logprobs(self, ids: Sequence[int], forced: int | None = None) -> npt.NDArray[np.float64]:
        """Natural log of the distribution of the token after `ids`, [vocabulary].

        forced: a token that is written whatever its probability, because nothing is told where the model
        would end at once; it has no influence on the figures.
        """
        body: dict[str, Any] = {
            "prompt": list(ids),
            "n_predict": 1,
            "n_probs": self.vocabulary,
            "temperature": 0,
            "cache_prompt": False,
            "post_sampling_probs": False,
        }
        if forced is not None:
            body["logit_bias"] = [[forced, 1e4]]
        told = self._post("/completion", body)
        listed = told.get("completion_probabilities") or []
        if not listed:
            raise ModelError(f"{self.path}: the model ends at once; give a token to force")
        found = np.full(self.vocabulary, -np.inf)
        for one in listed[0]["top_logprobs"]:
            found[one["id"]] = one["logprob"]
        return found

    # The other process

    def _answer(self, prompt: list[int], options: Generation, index: int) -> list[int]:
        told = self._post("/completion", self._body(prompt, options, index))
        self._time(told)
        ids = [int(token) for token in told.get("tokens") or []]
        end = next((i for i, token in enumerate(ids) if token in options.stop_ids), len(ids))
        return ids[:end]

    def _body(self, prompt: list[int], options: Generation, index: int) -> dict[str, Any]:
        if options.num_beams > 1:
            raise UsageError("num_beams: llama.cpp has no beam search -> num_beams=1")
        room = self.context - len(prompt)
        if room <= 0:
            raise ModelError(
                f"the prompt has {len(prompt)} tokens, the file reads {self.context} -> shorten it"
            )
        greedy = options.greedy
        return {
            "prompt": prompt,
            "n_predict": min(options.budget(len(prompt)), room),
            "return_tokens": True,
            "cache_prompt": True,
            "temperature": 0.0 if greedy else options.temperature,
            "top_k": 1 if greedy else options.top_k,
            "top_p": 1.0 if greedy else options.top_p,
            "min_p": 0.0,
            "repeat_penalty": options.repetition_penalty,
            "repeat_last_n": self.context,
            "samplers": ["penalties", "temperature", "top_k", "top_p"],
            "seed": options.seed + index,
            "stop": list(options.stop_strings),
        }

    def _time(self, told: Mapping[str, Any]) -> None:
        spent = told.get("timings")
        if spent:
            for ours, theirs in (
                ("prompt_tokens", "prompt_n"),
                ("prompt_ms", "prompt_ms"),
                ("tokens", "predicted_n"),
                ("ms", "predicted_ms"),
            ):
                self.timings[ours] += float(spent.get(theirs) or 0)

    def _post(self, place: str, body: Mapping[str, Any]) -> dict[str, Any]:
        connection, response = self._open(place, body)
        with contextlib.closing(connection):
            try:
                told: dict[str, Any] = json.loads(response.read(_LARGEST))
            except (ValueError, OSError, http.client.HTTPException) as error:
                raise self._gone(error) from error
        self._refused(told)
        return told

    def _open(
        self, place: str, body: Mapping[str, Any]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection.request("POST", place, json.dumps(body).encode(), headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise self._gone(error) from error

    def _refused(self, told: Mapping[str, Any]) -> None:
        if "error" in told:
            said = told["error"]
            raise ModelError(f"{self.path}: {said.get('message') if isinstance(said, dict) else said}")

    def _gone(self, error: Exception) -> ModelError:
        return ModelError(
            f"{self.path}: llama.cpp stopped ({error or type(error).__name__})\n{_tail(self._log)}"
        )


def _cores() -> int:
    """Threads that compute: as many as torch is told to use, or one for each core."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _started(settings: Mapping[str, Any], log: IO[bytes], path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """The process and its port. Raises ModelError with what llama.cpp said when it cannot open the file."""
    import importlib.util

    if importlib.util.find_spec("xllamacpp") is None:
        raise MissingPackage("xllamacpp", "running GGUF files", "gguf")
    process = subprocess.Popen(
        [sys.executable, "-m", "luthier.infer.llama_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},  # a debugger would be started for each abort
        start_new_session=True,  # Ctrl-C is for us, who then end it
    )
    assert process.stdin is not None and process.stdout is not None, "both are pipes"
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    address = process.stdout.readline().decode().strip()
    if not address.rpartition(":")[2].isdigit():
        process.wait()
        raise ModelError(f"{path}: llama.cpp cannot open it\n{_tail(log)}")
    return process, int(address.rpartition(":")[2])


def _tail(log: IO[bytes]) -> str:
    """What llama.cpp wrote about errors: the first two lines, which say why, and the last."""
    log.seek(0)
    lines = log.read().decode("utf-8", "replace").splitlines()
    errors = [line for line in lines if " E " in line or "error" in line.lower()] or lines
    return "\n".join(f"  {line}" for line in [*errors[:2], *errors[2:][-3:]])


def _message(message: Message) -> dict[str, Any]:
    """A turn in OpenAI's format."""
    found: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return found
