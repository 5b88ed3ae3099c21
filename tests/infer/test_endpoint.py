"""The door to OpenAI-compatible servers: what comes back, and what becomes of all that can go wrong."""

import json
import socket
import ssl
import threading

import pytest

import judges
from luthier.errors import UsageError
from luthier.infer import endpoint
from luthier.infer.endpoint import Endpoint, Failed

ASK = [{"role": "user", "content": "Which?"}]


def ask(url: str, **keys: object) -> str:
    """One question; waiting between tries takes no time."""
    return Endpoint(url, "m", wait=lambda seconds: None, **keys).chat(ASK)  # type: ignore[arg-type]


def test_a_question_is_a_chat_completion() -> None:
    with judges.serve(lambda request: judges.reply("你好 \ud83d\ude42")) as server:
        told = Endpoint(server.url + "/", "a model", key="k" * 20)
        assert told.chat(ASK) == "你好 🙂"
        assert "kkk" not in repr(told)
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["Authorization"] == "Bearer " + "k" * 20
    assert request.body["model"] == "a model" and request.body["messages"] == ASK
    assert request.body["temperature"] == 0 and request.body["stream"] is False


def test_no_key_is_sent_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in endpoint.KEYS:
        monkeypatch.delenv(name, raising=False)
    assert endpoint.key() == ("", "")
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert endpoint.key() == ("OPENAI_API_KEY", "theirs")
    monkeypatch.setenv("LUTHIER_JUDGE_KEY", "ours")
    assert endpoint.key() == ("LUTHIER_JUDGE_KEY", "ours")
    with judges.serve(lambda request: judges.reply("yes")) as server:
        assert ask(server.url) == "yes"
    assert "Authorization" not in server.requests[0].headers


@pytest.mark.parametrize("code", [429, 500, 503])
def test_what_may_pass_is_tried_again(code: int) -> None:
    def answer(request: judges.Request) -> judges.Response:
        return judges.status(code) if request.index < 2 else judges.reply("at last")

    waited: list[float] = []
    with judges.serve(answer) as server:
        assert Endpoint(server.url, "m", wait=waited.append).chat(ASK) == "at last"
    assert waited == [0, 0]


def test_waiting_grows_and_has_an_end() -> None:
    waited: list[float] = []
    with judges.serve(lambda request: judges.status(429, **{"Retry_After": "soon"})) as server:
        with pytest.raises(Failed, match="HTTP 429"):
            Endpoint(server.url, "m", wait=waited.append).chat(ASK)
        assert 0.5 <= waited[0] <= 1 <= waited[1] <= 2
    with judges.serve(lambda request: judges.status(429, **{"Retry_After": "86400"})) as server:
        with pytest.raises(Failed):
            Endpoint(server.url, "m", wait=waited.append).chat(ASK)
        assert waited[2:] == [endpoint.LONGEST_WAIT] * 2


@pytest.mark.parametrize(
    ("response", "said", "lasting"),
    [
        (judges.status(401, '{"error": "bad key"}'), "LUTHIER_JUDGE_KEY", True),
        (judges.status(404, "no such model"), "HTTP 404: no such model", True),
        (judges.status(400, "prompt too long"), "HTTP 400: prompt too long", False),
        (judges.Response(b"<!DOCTYPE html><h1>Sign in</h1>"), "no JSON: <!DOCTYPE", False),
        (judges.Response(b""), "it is empty", False),
        (judges.Response(b"[" * 100_000), "no JSON", False),
        (judges.Response(b'{"choices": []}'), "no choices", False),
        (judges.Response(b'{"error": {"message": "overloaded"}}'), "no choices: .*overloaded", False),
        (judges.Response(b'{"choices": [{"message": {"content": null}}]}'), "no text", False),
        (judges.Response(b'{"choices": [7]}'), "no text", False),
        (judges.Response(b" " * (endpoint.LARGEST + 1)), "larger than 1 MiB", False),
        (judges.Response(b"\x1b[2J\x00 bad"), r"no JSON: \\x1b\[2J\\x00 bad", False),
    ],
)
def test_every_answer_that_is_none_is_a_sentence(response: judges.Response, said: str, lasting: bool) -> None:
    with judges.serve(lambda request: response) as server, pytest.raises(Failed, match=said) as caught:
        ask(server.url)
    assert caught.value.lasting is lasting
    assert len(server.requests) == 1
    assert len(str(caught.value)) < 300


def test_redirects_are_not_followed() -> None:
    with judges.serve(lambda request: judges.reply("stolen")) as other:
        place = other.url + "/elsewhere?token=abcdef"
        for code in (301, 302, 307, 308):
            with judges.serve(lambda request, code=code: judges.status(code, Location=place)) as server:
                with pytest.raises(Failed, match="elsewhere, which were not sent there") as caught:
                    ask(server.url, key="secret-key")
                assert caught.value.lasting and "abcdef" not in str(caught.value)
    assert other.requests == []


def test_settings_that_a_server_refuses_are_left_out_from_then_on() -> None:
    def answer(request: judges.Request) -> judges.Response:
        refused = [name for name in ("temperature", "max_tokens") if name in request.body]
        return judges.status(400, f"Unsupported: '{refused[0]}'") if refused else judges.reply("ok")

    with judges.serve(answer) as server:
        told = Endpoint(server.url, "m")
        assert told.chat(ASK) == told.chat(ASK) == "ok"
    assert told.left_out == {"temperature", "max_tokens"}
    assert len(server.requests) == 4


def test_a_server_that_is_down_slow_or_no_server() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Failed, match="cannot be reached") as caught:
            ask(f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        assert not caught.value.lasting
    never = threading.Event()

    def silent(request: judges.Request) -> judges.Response:
        never.wait(10)
        return judges.reply("too late")

    with judges.serve(silent) as server:
        with pytest.raises(Failed, match=r"no answer within 0\.05 seconds"):
            ask(server.url, timeout=0.05)
        never.set()
    assert len(server.requests) == endpoint.TRIES


def test_one_who_speaks_no_http_or_hangs_up() -> None:
    spoken = (b"hello, I am no web server\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}", b"")
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        for words in [words for words in spoken for _ in range(endpoint.TRIES)]:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(words)

    with listener:
        threading.Thread(target=talk, daemon=True).start()
        for _ in spoken:
            with pytest.raises(Failed, match="cannot be reached"):
                ask(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout=5)


def test_a_connection_that_is_not_secure_is_not_used() -> None:
    with judges.serve(lambda request: judges.reply("plain")) as server:
        with pytest.raises(Failed, match="no secure connection") as caught:
            ask(server.url.replace("http:", "https:"))
        assert caught.value.lasting and server.requests == []
    assert ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "localhost:11434/v1",
            "file:///etc/passwd",
            "ftp://a/b",
            "http://",
            "http://a:0/",
            "http://a:99999/",
        ),
        *("http://a b/", "http://ä.example/", "http://a\n/", "http://" + "a" * 70 + ".example/"),
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="such as http://localhost:11434/v1"):
        endpoint.address(url)


def test_addresses_show_no_secrets() -> None:
    with pytest.raises(UsageError, match="password") as caught:
        endpoint.address("https://me:hunter22@example.org/v1")
    assert "hunter22" not in str(caught.value)
    url = "https://example.org/v1?api-version=1&sig=s3cr3tvalue"
    assert endpoint.address(url) == "https://example.org/v1/chat/completions?api-version=1&sig=s3cr3tvalue"
    assert endpoint.shown(url) == "https://example.org/v1"
    whole = "http://a/v1/chat/completions"
    assert endpoint.address(whole) == endpoint.address(whole + "/") == whole


def test_a_secret_that_a_server_repeats_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_JUDGE_KEY", "very-secret-key")
    body = json.dumps({"error": "wrong key very-secret-key"})
    with judges.serve(lambda request: judges.status(401, body)) as server:
        with pytest.raises(Failed) as caught:
            ask(server.url, key="very-secret-key")
        assert "very-secret" not in str(caught.value)
