"""A chat-completions endpoint on loopback, which also misbehaves when it is told to."""

import json
import os
import re
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from hashmem.hashhop import HashHop
from hashmem.hashhop.parse import parse_pairs

KEY = "sk-a-key-that-nobody-may-see"
LOST = ["reset", "empty", "cut", "cut chunks", "half", "text", "no choices", "error 200", "list"]
REFUSED = ["429", "429 after 7", "429 at a date", "500", "503 after 7", "408"]
FAULTS = LOST + REFUSED  # what another attempt helps against
SAMPLE = HashHop(characters=1_000, hops=2, hash_length=8, queries=6, seed=1)
OTHER = HashHop(characters=900, hops=3, hash_length=8, queries=4, seed=2, mode="direct")


class ChatServer(ThreadingHTTPServer):
    """`answer(request)` is the message, or its text. `faults` come first, one a request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.restart(answer)

    def restart(self, answer, faults=(), delay=0.0, usage=True, finish="stop"):
        self.answer, self.faults, self.delay = answer, list(faults), delay
        self.usage, self.finish = usage, finish
        self.requests = []  # as they came, those that met a fault as well
        self.keys = set()
        self.answered = Counter()  # request → whole answers that were sent
        self.under_way = self.most_under_way = 0

    def handle_error(self, request, address):  # killed clients are the point of some tests
        pass

    @contextmanager
    def counted(self, request):
        with self.lock:
            self.requests.append(request)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
            fault = self.faults.pop(0) if self.faults else None
        try:
            yield fault
        finally:
            with self.lock:
                self.under_way -= 1

    def completion(self, request):
        message = self.answer(request)
        if isinstance(message, str):
            message = {"content": message}
        choice = {"index": 0, "message": {"role": "assistant", **message}}
        if self.finish:
            choice["finish_reason"] = self.finish
        body = {"id": "chat", "object": "chat.completion", "choices": [choice]}
        if self.usage:
            read = sum(len(str(one["content"])) for one in request["messages"])
            body["usage"] = {"prompt_tokens": read, "completion_tokens": len(str(message))}
        return json.dumps(body).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.keys.add(self.headers["Authorization"])
        with server.counted(request) as fault:
            time.sleep(server.delay)
            if self.path != "/v1/chat/completions":
                return self.send(404, b'{"error": {"message": "no such path"}}')
            if fault is not None:
                return self.misbehave(fault, request)
            body = server.completion(request)
            with server.lock:
                server.answered[json.dumps(request, sort_keys=True)] += 1
            return self.send(200, body)

    def send(self, status, body, **headers):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def misbehave(self, fault, request):
        whole = self.server.completion(request)
        status, _, when = fault.partition(" ")
        if fault.startswith("slow "):
            time.sleep(float(when))
            self.close_connection = True
        elif fault == "reset":
            self.close_connection = True
        elif fault == "empty":
            self.send(200, b"")
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        elif fault == "cut chunks":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            half = whole[: len(whole) // 2]
            self.wfile.write(f"{len(half):x}\r\n".encode() + half + b"\r\n")
            self.close_connection = True
        elif fault == "half":
            self.send(200, whole[: len(whole) // 2])
        elif fault == "text":
            self.send(200, b"<html>upstream is busy</html>")
        elif fault == "no choices":
            self.send(200, b'{"choices": []}')
        elif fault == "list":
            self.send(200, b'[{"choices": {"message": 1}}]')
        elif fault == "error 200":
            self.send(200, b'{"error": {"message": "upstream failed", "code": 502}}')
        elif fault == "quota":
            self.send(429, b'{"error": {"message": "pay", "code": "insufficient_quota"}}')
        else:
            headers = {"Retry_After": when.removeprefix("after ")} if when else {}
            if when == "at a date":
                headers["Retry_After"] = formatdate(time.time() + 30, usegmt=True)
            said = f"fault {status}, you sent {self.headers['Authorization']}"
            self.send(int(status), json.dumps({"error": {"message": said}}).encode(), **headers)


@contextmanager
def serving(answer):
    server = ChatServer(answer)
    # The default looks twice a second whether to shut down.
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


# Models.


def read_question(request):
    """The prompt, and the queries that a request asks for, each with its hops."""
    prompt = request["messages"][0]["content"]
    listed = re.findall(r"^(\w+)(?: \((\d+) hops?\))?$", prompt.rpartition("Queries:\n")[2], re.M)
    every = (re.findall(r"take (\d+) hop", prompt) or [0])[-1]
    return prompt, {query: int(hops or every) for query, hops in listed}


def follow(queries, step):
    """The answer in steps of a model that knows `step`: hash → next hash, or None."""
    lines = []
    for query, hops in queries.items():
        chain = [query]
        while len(chain) <= hops and (after := step(chain[-1])) is not None:
            chain.append(after)
        lines.append(" = ".join(chain) if len(chain) > 1 else f"{query} = none")
    return "\n".join(lines)


def reader(request):
    """Answers everything right, from the text in the prompt."""
    prompt, queries = read_question(request)
    lines = [line.split(" = ") for line in prompt.splitlines()]
    links = {pair[0]: pair[1].strip("'") for pair in lines if len(pair) == 2}
    return follow(queries, links.get)


def caller(step):
    """A model that calls lookup where it has the tool, and knows only `step` where it has not."""

    def answer(request):
        _, queries = read_question(request)
        if "tools" not in request:
            return follow(queries, step)
        asked = {
            call["id"]: json.loads(call["function"]["arguments"])["hash"]
            for message in request["messages"] for call in message.get("tool_calls", ())
        }  # fmt: skip
        told = {
            asked[message["tool_call_id"]]: json.loads(message["content"])
            for message in request["messages"] if message["role"] == "tool"
        }  # fmt: skip
        wanted = []
        for query, hops in queries.items():
            at, taken = query, 0
            while taken < hops and told.get(at) is not None:
                at, taken = told[at], taken + 1
            if taken < hops and at not in told:
                wanted.append(at)
        if not wanted:
            return follow(queries, told.get)
        return {"content": None, "tool_calls": [
            {"id": f"c{len(asked) + i}", "type": "function",
             "function": {"name": "lookup", "arguments": json.dumps({"hash": at})}}
            for i, at in enumerate(wanted)
        ]}  # fmt: skip

    return answer


class SmallModel:
    """A softmax layer that learns the pairs of a text by heart, as many as it has room for.

    A hash is the product of a random sign vector for each letter in its place, so that any two
    are nearly orthogonal; the layer is trained by gradient descent to name each letter of the
    hash that follows. `features` bounds how many pairs fit.
    """

    def __init__(self, text, features, steps, seed=0):
        sources, targets = (self.letters(array) for array in parse_pairs(text))
        rng = np.random.default_rng(seed)
        self.signs = rng.choice([-1.0, 1.0], (sources.shape[1], 52, features))
        self.weights = np.zeros((sources.shape[1], features, 52))
        x = self.embed(sources)
        wanted = np.eye(52)[targets].transpose(1, 0, 2)  # (length, n, 52)
        self.losses = []
        for _ in range(steps):
            guess = x @ self.weights
            guess = np.exp(guess - guess.max(axis=2, keepdims=True))
            guess /= guess.sum(axis=2, keepdims=True)
            self.losses.append(-np.log((guess * wanted).sum(axis=2)).mean())
            self.weights += 2.0 / len(x) * (x.T @ (wanted - guess))

    @staticmethod
    def letters(array):
        """ASCII → 0 … 51."""
        return np.where(array >= ord("a"), array - ord("a"), array - ord("A") + 26).astype(int)

    def embed(self, letters):
        return np.prod([self.signs[i, letters[:, i]] for i in range(letters.shape[1])], axis=0)

    def next(self, text):
        x = self.embed(self.letters(np.frombuffer(text.encode(), np.uint8)[None]))
        best = (x @ self.weights).argmax(axis=2)[:, 0]
        return "".join(chr(ord("a") + i if i < 26 else ord("A") + i - 26) for i in best)


# What tests of the runner need besides.


def in_memory():
    """A folder in RAM, where there is one: syncs take no time there."""
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def tokens(text):
    return len(re.findall(r"\w{1,3}|[^\w]", text))
