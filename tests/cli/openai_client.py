#!/usr/bin/env python3
"""nibble serve asked by OpenAI's own Python client: python3 openai_client.py PROGRAM MODEL [CHAT_MODEL].

MODEL has a tokenizer without chat template (stories260K.bin), CHAT_MODEL has one (SmolLM2). Exits with 77, which ctest
shows as skipped, when the package `openai` or the model is not there.
"""
import json
import os
import signal
import subprocess
import sys

try:
    import openai
except ImportError:
    print("needs the package openai")
    sys.exit(77)


class Server:
    def __init__(self, program, model, *more):
        self.process = subprocess.Popen([program, "serve", "--model", model, "--port", "0", "--json", *more],
                                        stdout=subprocess.PIPE, text=True)
        ready = json.loads(self.process.stdout.readline())
        self.models = ready["models"]
        self.client = openai.OpenAI(base_url=ready["url"], api_key="any", max_retries=0, timeout=120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=20) == 0, "Ctrl-C should end the server with 0"


def refused(kind, call, part):
    try:
        call()
    except kind as e:
        assert part in str(e), e
        return e
    raise AssertionError(f"expected {kind.__name__}")


def check_completions(server):
    client, name = server.client, server.models[0]
    assert [m.id for m in client.models.list()] == server.models
    assert client.models.retrieve(name).id == name
    ask = dict(model=name, prompt="Once upon a time", max_tokens=24, temperature=0)
    whole = client.completions.create(**ask)
    text = whole.choices[0].text
    assert text.startswith(", there was a little girl named Lily"), text
    assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 24
    chunks = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == text
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert client.completions.create(**{**ask, "max_tokens": 200, "stop": [" Lily"]}).choices[0].finish_reason == "stop"
    drawn = {**ask, "temperature": 1.0, "seed": 3}
    assert client.completions.create(**drawn).choices[0].text == client.completions.create(**drawn).choices[0].text

    e = refused(openai.NotFoundError, lambda: client.completions.create(model="gpt-4", prompt="x"), "does not exist")
    assert e.code == "model_not_found" and e.param == "model"
    refused(openai.BadRequestError, lambda: client.completions.create(**{**ask, "n": 2}), "'n' is not supported")
    e = refused(openai.BadRequestError, lambda: client.completions.create(**{**ask, "prompt": "x" * 5000}), "context length")
    assert e.code == "context_length_exceeded"
    refused(openai.BadRequestError, lambda: client.chat.completions.create(model=name, messages=[{"role": "user", "content": "x"}]),
            "no chat template")
    refused(openai.NotFoundError, lambda: client.embeddings.create(model=name, input="x"), "there is no POST")
    # A client that loses patience: the server goes on with the next one.
    long = {**ask, "max_tokens": 480, "temperature": 2.0}
    refused(openai.APITimeoutError, lambda: client.with_options(timeout=0.05).completions.create(**long), "timed out")
    with client.completions.create(**long, stream=True) as stream:
        next(iter(stream))
    assert client.completions.create(**ask).choices[0].text == text


def check_chat(server):
    client, name = server.client, server.models[0]
    ask = dict(model=name, messages=[{"role": "system", "content": "Answer in one word."},
                                     {"role": "user", "content": [{"type": "text", "text": "What is the capital of France?"}]}],
               max_completion_tokens=16, temperature=0)
    whole = client.chat.completions.create(**ask)
    text = whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant" and "Paris" in text, text
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def main():
    program, model, *chat = sys.argv[1:]
    if not os.path.exists(model):
        print(f"needs {model}")
        sys.exit(77)
    with Server(program, model, "--dtype", "f32") as server:
        check_completions(server)
    if chat and os.path.exists(chat[0]):
        with Server(program, chat[0]) as server:
            check_chat(server)
    print("ok")


if __name__ == "__main__":
    main()
