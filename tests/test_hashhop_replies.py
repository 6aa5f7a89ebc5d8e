"""What the runner keeps of every answer, and that a run goes on from it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from chat_server import KEY, OTHER, SAMPLE, in_memory, reader

from hashmem import MemoryStore
from hashmem.errors import CorruptStoreError
from hashmem.hashhop import HashHop
from hashmem.hashhop.ask import Endpoint
from hashmem.hashhop.questions import list_questions
from hashmem.hashhop.replies import Replies
from hashmem.hashhop.run import run


def test_another_request_is_asked_anew(server, endpoint, tmp_path):
    asked = 0
    others = [
        endpoint,
        Endpoint(server.url, "another", sleep=endpoint._sleep),
        Endpoint(server.url, "m", temperature=1.0),
        Endpoint(server.url, "m", temperature=None),
        Endpoint(server.url, "m", max_tokens=9),
        Endpoint(server.url, "m", parameters={"seed": 1}),
        Endpoint(server.url.replace("127.0.0.1", "localhost"), "m"),
    ]
    for one in others:
        run([SAMPLE], one, replies=tmp_path)
        asked += 1
        assert len(server.requests) == asked
    run([SAMPLE], Endpoint(server.url + "/", "m", timeout=3, retries=0), replies=tmp_path)
    assert len(server.requests) == asked  # how it is waited for is no part of a request
    assert "temperature" not in server.requests[3]
    assert server.requests[5]["seed"] == 1


def test_answers_outlive_compaction_and_moves(server, endpoint, tmp_path):
    run([SAMPLE, OTHER], endpoint, each=True, replies=tmp_path / "a")
    with MemoryStore(tmp_path / "a") as store:
        assert len(store) == 10
        store.compact()
        store.export_to(str(tmp_path / "archive"))
        stored = b"".join(record for record in store.get_many(store.digests()))
    with MemoryStore(tmp_path / "b") as store:
        store.import_from(str(tmp_path / "archive"))
    for folder in ("a", "b"):
        results = run([SAMPLE, OTHER], endpoint, each=True, replies=tmp_path / folder)
        assert [result.cached for result in results] == [6, 4]
    assert len(server.requests) == 10
    assert KEY.encode() not in stored
    assert SAMPLE.text().encode()[:100] not in stored


def test_what_is_missing_or_damaged_is_noticed(server, endpoint, tmp_path):
    run([SAMPLE], endpoint, replies=tmp_path)
    with MemoryStore(tmp_path) as store:
        (digest,) = store
        store.delete(digest)
    (result,) = run([SAMPLE], endpoint, replies=tmp_path)
    assert (result.cached, len(server.requests)) == (0, 2)
    with Replies(None) as probe:
        asked = probe.digest(
            endpoint, endpoint.request([{"role": "user", "content": SAMPLE.prompt}])
        )
    with MemoryStore(tmp_path) as store:
        store.link(asked, store.put(b"\x81\xa7request\xc4\x01x"))
    with pytest.raises(CorruptStoreError, match="another folder"):
        run([SAMPLE], endpoint, replies=tmp_path)


ZYGOTE = """
import os, sys, random
import openai
from hashmem.hashhop import HashHop
from hashmem.hashhop.ask import Endpoint
from hashmem.hashhop.run import run
import hashmem.store
print("ready", flush=True)
url, folder = sys.argv[1:]
for line in sys.stdin:
    child = os.fork()  # a zombie until it is waited for, so that its number stays its own
    if not child:
        sample = HashHop(characters=4_000, hops=1, hash_length=8, queries=90, seed=5)
        run([sample], Endpoint(url, "m", retries=0), each=True, concurrency=3, replies=folder)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_killed_run_asks_nothing_twice_that_was_answered(server, tmp_path):
    """Children of a process that has imported everything, killed at random times."""
    sample = HashHop(characters=4_000, hops=1, hash_length=8, queries=90, seed=5)
    endpoint = Endpoint(server.url, "m")
    requests = {
        json.dumps(request, sort_keys=True): request
        for question in list_questions([sample], each=True, tools=False, keep_text=False)
        for request in [endpoint.request(question.messages())]
    }
    rng = random.Random(7)
    server.restart(reader, delay=0.01)
    held, ends = Counter(), []  # held: what was kept at the last kill, and how often it was asked
    with in_memory() as folder, subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, server.url, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    ) as zygote:  # fmt: skip
        assert zygote.stdout.readline() == "ready\n"
        while not ends or ends[-1] != 0:
            zygote.stdin.write("\n")
            child = int(zygote.stdout.readline())
            if len(ends) < 5:
                goal = sum(server.answered.values()) + rng.randint(5, 9)
                while sum(server.answered.values()) < goal and len(server.answered) < 90:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.01))
                os.kill(child, signal.SIGKILL)
            zygote.stdin.write("\n")
            ends.append(int(zygote.stdout.readline()))
            assert ends[-1] in (0, -signal.SIGKILL)
            asked = Counter(json.dumps(request, sort_keys=True) for request in server.requests)
            for name, count in held.items():
                assert asked[name] == count, "asked again what was kept"
            with Replies(folder) as kept:
                held = Counter({
                    name: asked[name] for name, request in requests.items()
                    if kept.get(kept.digest(endpoint, request)) is not None
                })  # fmt: skip
        zygote.stdin.close()
        kills = ends.count(-signal.SIGKILL)
        assert kills > 1
        assert len(held) == len(requests) == 90
        # Only what was under way at a kill is asked again, of the five at least that were answered.
        assert len(server.requests) <= 90 + 3 * kills
        before = len(server.requests)
        (result,) = run([sample], endpoint, each=True, replies=folder)
    assert (result.score.correct, result.cached) == (90, 90)
    assert len(server.requests) == before
    endpoint.close()
