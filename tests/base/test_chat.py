"""The client of chat endpoints: what it sends, what it tries again, and how it says what went wrong."""

import json
import socket
from types import SimpleNamespace

import pytest
from chat_server import chat_server

from twinreel.base.chat import ENDPOINT_ENV, KEY_ENV, Chat, ChatError, ChatOptions, of_flags
from twinreel.base.errors import UserError

ASKED = [{"role": "user", "content": "Hello?"}]
SECRET = "sk-do-not-show"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    for name in (KEY_ENV, ENDPOINT_ENV):
        monkeypatch.delenv(name, raising=False)


def chat(server, *, waits=None, **options):
    return Chat(ChatOptions(endpoint=server.url, **options), sleep=(waits if waits is not None else []).append)


def error(status, *, headers=None, said="it says no"):
    return status, headers or {}, json.dumps({"error": {"message": said}}).encode()


def test_a_question_is_sent_with_the_key_and_answered(monkeypatch):
    monkeypatch.setenv(KEY_ENV, SECRET)
    with chat_server(lambda body: " a red square falls \n") as server:
        reply = chat(server, model="small", max_tokens=7).ask(ASKED)
    assert reply.text == "a red square falls" and reply.model == "stand-in" and not reply.cut
    [sent] = server.requests
    assert sent == {"messages": ASKED, "model": "small", "max_tokens": 7, "temperature": 0.0, "stream": False}
    assert server.keys == [f"Bearer {SECRET}"]


def test_without_a_key_none_is_sent():
    with chat_server(lambda body: "yes") as server:
        chat(server).ask(ASKED)
        full = ChatOptions(endpoint=f"{server.url}/chat/completions/")
        assert Chat(full).ask(ASKED).text == "yes"
    assert server.keys == [None, None] and "model" not in server.requests[0]


def test_busy_and_broken_answers_are_tried_again_with_growing_waits():
    answers = iter([error(503), error(429, headers={"Retry-After": "7"}), (200, {}, b"<html>"), "done"])
    waits = []
    with chat_server(lambda body: next(answers)) as server:
        assert chat(server, waits=waits).ask(ASKED).text == "done"
    assert waits == [1.0, 7.0, 4.0]


def test_a_wait_that_the_endpoint_asks_for_is_capped():
    answers, waits = iter([error(429, headers={"Retry-After": "86400"}), "done"]), []
    with chat_server(lambda body: next(answers)) as server:
        chat(server, waits=waits).ask(ASKED)
    assert waits == [60.0]


@pytest.mark.parametrize(
    ("made", "message", "tries"),
    [
        (error(401), rf"refuses access; put its key into the environment variable {KEY_ENV} \(status 401: 'it says", 1),
        (error(429), r"too many requests.*status 429: 'it says no'\) \(tried 3 times\)", 3),
        (error(404), r"has no chat completions at .*, or no model ''; correct --endpoint or --llm", 1),
        (error(400), r"refuses the request; is --llm NAME missing, or the prompt longer than its context\?", 1),
        (error(500), r"has failed \(status 500", 3),
        ((307, {"Location": "http://127.0.0.1:9/"}, b""), r"redirects, which is not followed, as the key would go", 1),
        ((200, {}, b"<html>welcome</html>"), r"does not answer as a chat endpoint: '<html>welcome</html>'", 3),
        ((200, {}, b'{"choices": []}'), r"does not answer as a chat endpoint", 3),
        ((200, {}, b""), r"does not answer as a chat endpoint: 'nothing'", 3),
        ("   ", r"answered without any text", 3),
    ],
)
def test_every_refusal_says_what_and_how_to_mend_it(made, message, tries):
    with chat_server(lambda body: made) as server, pytest.raises(ChatError, match=message):
        chat(server, retries=2).ask(ASKED)
    assert len(server.requests) == tries


def test_a_key_stands_in_no_message(monkeypatch):
    monkeypatch.setenv(KEY_ENV, SECRET)
    message = rf"check the key in {KEY_ENV}.*unknown key \*\*\*"
    refuses = chat_server(lambda body: error(401, said=f"unknown key {SECRET}"))
    with refuses as server, pytest.raises(ChatError, match=message) as caught:
        chat(server).ask(ASKED)
    assert SECRET not in repr(caught.value) and SECRET not in repr(chat(server).options)


def test_an_endpoint_that_hangs_is_left_after_the_timeout():
    message = r"gave no whole answer in 0.2 s.*--timeout"
    with chat_server(lambda body: None) as server, pytest.raises(ChatError, match=message):
        chat(server, timeout=0.2).ask(ASKED)
    assert len(server.requests) == 1  # it never answered, so it is not asked again


def test_an_endpoint_that_hangs_after_it_has_answered_is_tried_again():
    answers = iter(["yes", None, "again"])
    with chat_server(lambda body: next(answers)) as server:
        one = chat(server, timeout=0.5)
        assert [one.ask(ASKED).text, one.ask(ASKED).text] == ["yes", "again"]


def test_an_endpoint_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ChatError, match=r"cannot be reached \(Connection refused\); start the server, or correct"):
        Chat(ChatOptions(endpoint=url)).ask(ASKED)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "localhost:8000"}, r"--endpoint is '.*', wanted a URL such as http://127.0.0.1:8000/v1"),
        ({"endpoint": "http://a:b"}, r"--endpoint is '', wanted a URL"),
        ({"endpoint": "ftp://a/v1"}, r"wanted a URL"),
        ({"endpoint": f"http://me:{SECRET}@a/v1"}, r"--endpoint http://a/v1 holds a user, a password or a query"),
        ({"endpoint": f"http://a/v1?key={SECRET}"}, r"--endpoint http://a/v1 holds a user, a password or a query"),
        ({"endpoint": "http://a/v1", "timeout": 0.0}, r"--timeout is 0.0, wanted more than 0 seconds"),
        ({"endpoint": "http://a/v1", "retries": -1}, r"--retries is -1"),
        ({"endpoint": "http://a/v1", "temperature": float("nan")}, r"--temperature is nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message) as caught:
        ChatOptions(**options)
    assert SECRET not in str(caught.value)


def test_the_flags_name_what_is_missing(monkeypatch):
    flags = {"llm": "", "key_env": KEY_ENV, "timeout": 1.0, "retries": 0, "max_tokens": 1, "temperature": 0.0}
    with pytest.raises(UserError, match=r"no endpoint; give --endpoint URL of an OpenAI-compatible server"):
        of_flags(SimpleNamespace(endpoint="", **flags))
    with pytest.raises(UserError, match=r"--key_env MY_KEY: this variable is not set"):
        of_flags(SimpleNamespace(endpoint="http://a/v1", **flags | {"key_env": "MY_KEY"}))
    monkeypatch.setenv(ENDPOINT_ENV, "http://b/v1")
    assert of_flags(SimpleNamespace(endpoint="", **flags)).url == "http://b/v1/chat/completions"
