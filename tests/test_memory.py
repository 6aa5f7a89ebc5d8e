"""Memory against a plain dict of texts: the same places and chunks, nothing left over."""

import argparse
import inspect
import json
import threading
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from hashmem import Memory, MemoryStore
from hashmem.memory import Place
from hashmem.retrieval.summary_index import SummaryIndex
from hashmem.summaries import HashedNgrams
from hashmem.text import TextFiles, chunk_lines

# A few lines, so that sources share chunks.
LINES = ["red apple\n", "green pear\n", "blue plum\n", "the\n", "\n"]
texts = st.lists(st.sampled_from(LINES), max_size=6).map("".join)
sources = st.sampled_from(["a.txt", "b/c.txt", "größe.md", ""])


def two_lines(text):
    return chunk_lines(text, 2)


class MemoryMachine(RuleBasedStateMachine):
    """Sources come, change and go; others' records lie in the same store; it is reopened."""

    numbers = count()

    def open(self):
        raise NotImplementedError

    @initialize()
    def begin(self):
        self.store = self.open()
        self.memory = Memory(self.store, HashedNgrams(64), two_lines)
        self.texts = {}
        self.own = {}  # the user's own records: payload → metadata
        self.committed = ({}, {})

    @rule(source=sources, text=texts)
    def add(self, source, text):
        chunks = two_lines(text)
        digests = self.memory.add(text, source=source)
        assert [bytes(d) for d in digests] == [self.store.digest(c.text.encode()) for c in chunks]
        self.texts[source] = text

    @rule(items=st.lists(st.tuples(sources, texts), max_size=4))
    def add_many(self, items):
        assert self.memory.add_many(iter(items)) == len(items)
        self.texts.update(items)

    @rule(source=sources)
    def remove(self, source):
        assert self.memory.remove(source) == bool(self.texts.pop(source, ""))

    @rule(payload=st.sampled_from(["red apple\ngreen pear\n", "the\n"]), metadata=st.booleans())
    def put_own(self, payload, metadata):
        digest = self.store.digest(payload.encode())
        if digest not in self.store:
            self.own[payload] = {"mine": 1} if metadata else None
            self.store.put(payload.encode(), self.own[payload])

    @rule(word=st.sampled_from(["apple", "Pears", "plum red", "the"]), k=st.integers(1, 9))
    def search(self, word, k):
        expected = self.expected_places()
        asked = {"apple": ["apple"], "Pears": ["pear"], "plum red": ["plum", "red"]}.get(word, [])
        holding = {text for text in expected if any(w in text.split() for w in asked)}
        hits = self.memory.search(word, k)
        assert len(hits) == min(k, len(holding))
        assert {hit.text for hit in hits} <= holding
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert hit.digest == self.store.digest(hit.text.encode())
            assert hit.places == expected[hit.text]

    @rule()
    def nothing_is_left_over(self):
        named = {source: text for source, text in self.texts.items() if text}
        assert self.memory.sources() == sorted(named)
        stored = {self.store.digest(t.encode()) for t in [*self.expected_places(), *self.own]}
        stored |= {self.store.digest(b"\xff" + source.encode()) for source in named}
        assert {bytes(d) for d in self.store.digests()} == stored
        for source, text in self.texts.items():
            chunks = [self.store[bytes(d)].decode() for d in self.memory.chunks(source)]
            assert "".join(chunks) == text
        for payload, metadata in self.own.items():
            found = self.store.metadata(self.store.digest(payload.encode())) or {}
            assert found.get("mine") == (metadata or {}).get("mine")

    @rule()
    def commit(self):
        self.store.commit()
        self.committed = (dict(self.texts), dict(self.own))

    @rule()
    def rollback(self):
        self.store.rollback()
        self.memory.refresh()
        self.texts, self.own = map(dict, self.committed)

    @rule(dims=st.sampled_from([64, 32]))
    def another_memory_on_the_same_store(self, dims):
        self.memory = Memory(self.store, HashedNgrams(dims), two_lines)

    def expected_places(self):
        places = {}
        for source, text in sorted(self.texts.items()):
            for chunk in two_lines(text):
                place = Place(source, chunk.first_line, chunk.last_line)
                places.setdefault(chunk.text, []).append(place)
        return places

    def teardown(self):
        if hasattr(self, "store"):
            self.nothing_is_left_over()
            self.store.rollback()
            self.store.close()


class InRam(MemoryMachine):
    def open(self):
        return MemoryStore()


TestInRam = InRam.TestCase
TestInRam.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    OnDisk.folder = tmp_path_factory.mktemp("stores")
    return OnDisk.folder


class OnDisk(MemoryMachine):
    def open(self):
        self.path = self.folder / f"{next(self.numbers)}.hashmem"
        return MemoryStore(self.path)

    @rule()
    def reopen(self):
        self.commit()
        self.store.close()
        self.store = MemoryStore(self.path)
        self.memory = Memory(self.store, HashedNgrams(64), two_lines)

    @rule()
    def compact(self):
        self.store.compact()
        self.committed = (dict(self.texts), dict(self.own))

    @rule(source=sources, text=texts)
    @precondition(lambda self: self.committed == (self.texts, self.own))
    def somebody_else_adds(self, source, text):
        with MemoryStore(self.path) as store:
            Memory(store, HashedNgrams(64), two_lines).add(text, source)
        self.memory.refresh()
        self.texts[source] = text
        self.committed = (dict(self.texts), dict(self.own))


@pytest.mark.usefixtures("folder")
class TestOnDisk(OnDisk.TestCase):
    settings = settings(max_examples=15, stateful_step_count=15, deadline=None)


def library():
    return [
        (m.__name__, inspect.getsource(m)) for m in (argparse, inspect, json.decoder, threading)
    ]


@pytest.fixture(scope="module")
def memory():
    memory = Memory(MemoryStore())
    memory.add_many(library())
    return memory


@pytest.mark.parametrize(
    ("query", "source", "says"),
    [
        ("print usage and exit with an error message", "argparse", "def error("),
        ("parse a json array", "json.decoder", "def JSONArray"),
        ("wait until the thread terminates", "threading", "def join"),
        ("get the source code of an object", "inspect", "def getsource"),
    ],
)
def test_plain_questions_find_the_code_that_answers(memory, query, source, says):
    hits = memory.search(query)
    assert len(hits) == 5
    assert any(hit.places[0].source == source and says in hit.text for hit in hits)


def test_places_are_those_of_the_text(memory):
    for source, text in library():
        lines = text.splitlines(keepends=True)
        for hit in memory.search(source.replace(".", " "), k=20):
            for place in hit.places:
                if place.source == source:
                    assert hit.text in "".join(lines[place.first_line - 1 : place.last_line])


def test_a_changed_source_keeps_most_of_its_chunks():
    memory = Memory(MemoryStore())
    text = inspect.getsource(argparse)
    before = {bytes(d) for d in memory.add(text, "argparse.py")}
    after = {bytes(d) for d in memory.add("# one more line\n" + text, "argparse.py")}
    assert len(before - after) <= 4
    assert {bytes(d) for d in memory.store.digests()} == after | {
        memory.store.digest(b"\xffargparse.py")
    }


def test_search_of_nothing_finds_nothing():
    memory = Memory(MemoryStore())
    assert memory.search("anything") == []
    memory.add("something", "a")
    assert memory.search("what is the") == []
    for query in ("", " \n", "?!"):
        with pytest.raises(ValueError, match="no word to search for"):
            memory.search(query)
    assert len(memory.search("something", k=10**6)) == 1


@pytest.mark.parametrize("k", [0, -1])
def test_a_search_for_no_hits_is_refused(k):
    with pytest.raises(ValueError, match="k must be"):
        Memory(MemoryStore()).search("x", k)


def test_what_cannot_be_stored_is_refused_and_nothing_changes():
    memory = Memory(MemoryStore())
    memory.add("fine", "a")
    for text, source in (("bad \ud800", "a"), ("fine", "\ud800")):
        with pytest.raises(ValueError, match="surrogate"):
            memory.add(text, source)
    for text, source in ((b"bytes", "a"), ("fine", b"a"), (None, "a")):
        with pytest.raises(TypeError, match="must be a str"):
            memory.add(text, source)
    with pytest.raises(TypeError, match="query"):
        memory.search(b"fine")
    assert memory.sources() == ["a"]
    assert memory.search("fine")[0].places == [Place("a", 1, 1)]


def test_a_folder_goes_in_as_it_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("a tall tower\n")
    (tmp_path / "b.bin").write_bytes(b"\0")
    files = TextFiles(tmp_path)
    memory = Memory(MemoryStore())
    assert memory.add_many(files) == 1
    assert files.skipped == {"not text": 1}
    assert memory.search("towers")[0].places == [Place("a.txt", 1, 1)]


def test_a_store_opened_for_reading_can_be_searched(tmp_path):
    with MemoryStore(tmp_path / "s.hashmem") as store:
        Memory(store).add("a tall tower", "a")
    with MemoryStore(tmp_path / "s.hashmem", readonly=True) as store:
        assert Memory(store).search("tower")
        assert Memory(store, HashedNgrams(100)).search("tower")


def test_threads_take_turns():
    memory = Memory(MemoryStore())
    failed = []

    def work(number):
        try:
            for i in range(10):
                memory.add(f"shared line\nnumber{number} round{i}\n", f"{number}")
                assert memory.search(f"number{number}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert memory.sources() == ["0", "1", "2", "3"]


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 9), max_size=5)), max_size=12))
def test_an_index_is_a_dict_of_summaries(steps):
    index = SummaryIndex(8, 4, np.dtype(np.int8))
    model = {}
    for version, (putting, keys) in enumerate(steps):
        digests = np.array([[key] * 8 for key in keys], np.uint8).reshape(-1, 8)
        if putting:
            rows = np.array([[key + 1, version % 3, 0, 7 - 2 * key] for key in keys], np.int8)
            index.put(digests, rows.reshape(-1, 4))
            model.update(zip(keys, rows.astype(float), strict=True))
        else:
            index.discard(digests)
            for key in keys:
                model.pop(key, None)
        assert len(index) == len(model)
        for query in ([0, 0, 0, 1], [3, -2, 0, 0]):
            scores = {key: row @ query / np.linalg.norm(row) for key, row in model.items()}
            for k in (3, 99):
                found = index.search(np.array(query, np.float32), k, sparse=False)[:, 0].tolist()
                assert len(set(found)) == len(found)
                ranked = sorted(scores.values(), reverse=True)[:k]
                np.testing.assert_allclose([scores[key] for key in found], ranked, atol=1e-5)


def test_the_names_of_sources_say_what_their_text_is_about():
    memory = Memory(MemoryStore())
    memory.add("def total(values): return sum(values)\n", "invoice/report.py")
    memory.add("def total(values): return max(values)\n", "chess/board.py")
    hits = memory.search("total of an invoice")
    assert [hit.places[0].source for hit in hits] == ["invoice/report.py", "chess/board.py"]
    assert memory.search("total on the chess board")[0].places[0].source == "chess/board.py"


def test_a_chunk_is_found_by_the_names_of_its_sources_as_they_are_now():
    memory = Memory(MemoryStore())
    first = memory.add("nothing but this\n", "meeting.md")
    assert memory.search("meeting")
    assert (memory.add("nothing but this\n", "talk.md") == first).all()
    memory.remove("meeting.md")
    for opened in (memory, Memory(memory.store), Memory(memory.store, HashedNgrams(99))):
        assert opened.search("talk")[0].places == [Place("talk.md", 1, 1)]
        assert opened.search("meeting") == []


def test_a_record_that_was_there_before_outlives_its_places():
    store = MemoryStore()
    plain, described = store.put(b"one\n"), store.put(b"two\n", {"mine": 1})
    memory = Memory(store, cut=lambda text: chunk_lines(text, 1))
    memory.add("one\ntwo\nthree\n", "a")
    assert memory.search("two")[0].places == [Place("a", 2, 2)]
    assert memory.remove("a")
    assert memory.search("two") == []
    assert Memory(store).search("two") == []
    assert len(store) == 2
    assert store.metadata(plain) is None
    assert store.metadata(described) == {"mine": 1}
