"""Memory: text that is cut, summarised, stored and found again.

What is kept in the store, next to whatever else is in it:

- a *chunk*: the payload is its text as UTF-8; metadata {"places": [[source, first line, last
  line], …]}, sorted; in the column ``memory.summary.<name of the method>`` the summary of its text
  and, twice, the names of its first four sources. A record that was there before it became a chunk
  has "kept": True as well, and outlives its last place.
- a *source*: the payload is 0xFF followed by its name (no text begins so in UTF-8), so the name
  alone leads to it; metadata {"source": name, "chunks": the digests of its chunks, joined, in
  order}; a 1 in the column ``memory.source``, by which sources are listed.

Nothing else is needed to open it again. What is written joins the store's uncommitted changes and
is kept when the store commits; `Memory` never commits by itself.
"""

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashmem.retrieval.bm25 import bm25
from hashmem.retrieval.summary_index import SummaryIndex
from hashmem.store import MemoryStore
from hashmem.summaries import HashedNgrams, SummaryMethod, pack
from hashmem.text import Chunk, chunk_content, hash_words, is_stop_word

__all__ = ["Hit", "Memory", "Place"]

Digests = NDArray[np.uint8]  # (n, width)

_SOURCES = "memory.source"
_SUMMARIES = "memory.summary."
_BATCH = 1 << 22  # characters that `add_many` stores at a time
_CANDIDATES = 300  # read and scored by their words at least, and 20 for each hit asked for
_PER_HIT = 20
_NAMES = 4  # sources of a chunk whose names count as part of what it says


class Place(NamedTuple):
    """Where a chunk stands: lines `first_line` to `last_line`, counted from 1, of `source`."""

    source: str
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that was found, and all the places it stands in, by source and line."""

    digest: bytes
    score: float
    text: str
    places: list[Place]


class Memory:
    """Text in a store, cut into chunks that are kept once, and search over it.

    :param store: where everything is kept. Commit it, or use it as a context manager.
    :param summary: how chunks are summarised, by default `HashedNgrams`. Chunks stored with
        another method are summarised again, in memory only, when search begins.
    :param cut: how texts become chunks, by default `chunk_content`: it finds best of the methods
        measured, and a changed text keeps most of its chunks (``docs/text.md``).

    May be used by several threads, which take turns. What was rolled back, or what others wrote
    to the same store, is taken in by `refresh`.

    >>> memory = Memory(MemoryStore())
    >>> _ = memory.add("def area(r):\\n    return 3.14 * r * r\\n", source="circle.py")
    >>> memory.search("area of a circle")[0].places
    [Place(source='circle.py', first_line=1, last_line=2)]
    """

    def __init__(
        self,
        store: MemoryStore,
        summary: SummaryMethod | None = None,
        cut: Callable[[str], Sequence[Chunk]] = chunk_content,
    ) -> None:
        self.store = store
        self.summary = summary if summary is not None else HashedNgrams()
        self._cut = cut
        self._lock = threading.RLock()
        self._index: SummaryIndex | None = None  # made by the first search
        self._column = _SUMMARIES + self.summary.name

    def add(self, text: str, source: str) -> Digests:
        """Store `text` under the name `source`, in place of what that held before.

        Returns the digests of its chunks in their order, uint8 (n, width). Chunks that no source
        holds any more are deleted; those shared with other sources are kept once, with a place in
        each. O(len(text)), and O(places) for chunks in very many sources.

        Raises `TypeError` where text or source is no str, `ValueError` where they cannot be
        written as UTF-8; nothing is changed then.
        """
        with self._lock:
            return self._replace({source: text})[source]

    def add_many(self, items: Iterable[tuple[str, str]]) -> int:
        """Store many sources, (source, text) each, such as `hashmem.text.TextFiles` gives them.

        Returns how many. As `add` one by one, in batches, which is much faster.
        """
        count = 0
        batch: dict[str, str] = {}
        size = 0
        with self._lock:
            for source, text in items:
                batch[source] = text
                count += 1
                size += len(text)
                if size >= _BATCH:
                    self._replace(batch)
                    batch, size = {}, 0
            self._replace(batch)
        return count

    def remove(self, source: str) -> bool:
        """Forget `source` and the chunks only it held; say whether it was there."""
        with self._lock:
            known = _source_payload(source)
            if self.store.digest(known) not in self.store:
                return False
            self._replace({source: ""})
            return True

    def sources(self) -> list[str]:
        """The names of all sources, sorted."""
        return sorted(metadata["source"] for metadata in self._source_records())

    def chunks(self, source: str) -> Digests:
        """The digests of the chunks of `source`, in order, (n, width): none where it is unknown."""
        return self._digests(self._chunk_lists([source])[0])

    def source_digest(self, source: str) -> bytes:
        """The digest of the record that stands for `source`: it follows from the name alone.

        It stays when the text changes, so it is what links between sources lead from and to.
        """
        return self.store.digest(_source_payload(source))

    @property
    def summary_column(self) -> str:
        """The name of the store's column that holds the chunks' summaries."""
        return self._column

    def search(self, query: str, k: int = 5) -> list[Hit]:
        """Find the at most `k` chunks that answer `query` best, best first.

        In two stages: the summaries choose the max(300, 20 · k) nearest chunks, and these are
        read and ranked by the words they share with the query (`hashmem.retrieval.bm25`), those
        of the names of their sources included. A chunk that shares none is no hit, and a query of
        stop words alone has none. What was added and not committed is found. The first search
        reads all summaries; then O(chunks · words of the query).

        Raises `ValueError` where k < 1 or the query holds no word at all, `TypeError` where the
        query is no str or k no integer.
        """
        if operator.index(k) < 1:
            raise ValueError(f"k must be 1 or more, not {k}")
        _expect_str("query", query)
        asked = hash_words([query]).hashes
        if not len(asked):
            raise ValueError(f"the query {query!r} holds no word to search for")
        asked = asked[~is_stop_word(asked)]
        with self._lock:
            index = self._loaded()
            if not len(asked) or not len(index):
                return []
            nearest = index.search(
                self.summary.encode_query(query),
                max(_CANDIDATES, _PER_HIT * k),
                self.summary.sparse,
            )
            with self.store.get_many(nearest) as records:
                found = [
                    (bytes(digest), text, about["places"])
                    for digest, text, about in zip(
                        nearest, records, self.store.metadata_many(nearest), strict=True
                    )
                    # What is no chunk any more may have a summary still.
                    if text is not None and about is not None and "places" in about
                ]
        read = hash_words(_with_names(text, places) for _, text, places in found)
        scores = bm25(asked, read, len(index))
        order = np.argsort(-scores, kind="stable")[: min(k, np.count_nonzero(scores > 0))]
        hits = []
        for i in order.tolist():
            digest, text, places = found[i]
            where = [Place(*place) for place in places]
            hits.append(Hit(digest, float(scores[i]), text.decode(), where))
        return hits

    def refresh(self) -> None:
        """Take in what changed in the store behind this object's back."""
        with self._lock:
            self.store.refresh()
            self._index = None

    # -- writing --------------------------------------------------------------------------------

    def _replace(self, batch: dict[str, str]) -> dict[str, Digests]:
        """Make each source hold the chunks of its text and nothing else: their digests."""
        held: dict[str, list[bytes]] = {}  # source → its chunks
        payloads: dict[bytes, bytes] = {}  # chunk → text
        places: dict[bytes, list[list[Any]]] = {}  # chunk → where it stands in these sources
        for source, text in batch.items():
            held[source] = []
            for chunk, payload in _cut(self._cut, source, text):
                digest = self.store.digest(payload)
                held[source].append(digest)
                payloads[digest] = payload
                places.setdefault(digest, []).append([source, chunk.first_line, chunk.last_line])
        former = [digest for known in self._chunk_lists(batch) for digest in known]
        affected = list(dict.fromkeys([*payloads, *former]))

        metadata: dict[bytes, dict[str, Any] | None] = {}  # chunk → what changes
        fresh, renamed, unused = [], [], []  # new chunks, those of other names, none any more
        stored = self.store.contains(affected).tolist()
        known = self.store.metadata_many(affected)
        for digest, is_stored, about in zip(affected, stored, known, strict=True):
            about = about or {}
            before = about.pop("places", None)
            after = [place for place in before or () if place[0] not in batch]
            after = sorted(after + places.get(digest, []))
            if after:
                if before is None:
                    fresh.append(digest)
                    if is_stored:
                        about["kept"] = True
                elif _names(before) != _names(after):
                    renamed.append(digest)
                places[digest] = after
                metadata[digest] = {**about, "places": after}
            elif before is not None:
                unused.append(digest)
                if about.pop("kept", False):
                    metadata[digest] = about or None

        summarised = fresh + renamed
        payloads.update(self._read([digest for digest in renamed if digest not in payloads]))
        rows = self._summaries(_with_names(payloads[d], places[d]) for d in summarised)
        self.store.put_many([payloads[digest] for digest in fresh])
        self.store.set_metadata(list(metadata), list(metadata.values()))
        self.store.write_column(self._column, summarised, rows)
        self.store.delete_many([digest for digest in unused if digest not in metadata])
        self._write_sources(held)
        if self._index is not None:
            self._index.discard(self._digests(unused))
            self._index.put(self._digests(summarised), rows)
        return {source: self._digests(digests) for source, digests in held.items()}

    def _write_sources(self, held: dict[str, list[bytes]]) -> None:
        """Record which chunks each source holds; a source without any is forgotten."""
        filled = {source: digests for source, digests in held.items() if digests}
        at = self.store.put_many([_source_payload(source) for source in filled])
        about = [{"source": name, "chunks": b"".join(chunks)} for name, chunks in filled.items()]
        self.store.set_metadata(at, about)
        self.store.write_column(_SOURCES, at, np.ones((len(at), 1), np.uint8))
        empty = [source for source, digests in held.items() if not digests]
        self.store.delete_many([self.store.digest(_source_payload(source)) for source in empty])

    # -- reading --------------------------------------------------------------------------------

    def _chunk_lists(self, sources: Iterable[str]) -> list[list[bytes]]:
        """The digests of the chunks of each source, in order."""
        at = [self.store.digest(_source_payload(source)) for source in sources]
        return [self._split(about) for about in self.store.metadata_many(at)]

    def _split(self, about: dict[str, Any] | None) -> list[bytes]:
        joined = about["chunks"] if about else b""
        return [joined[i : i + self.store.width] for i in range(0, len(joined), self.store.width)]

    def _source_records(self) -> list[dict[str, Any]]:
        """The metadata of every source."""
        if _SOURCES not in self.store.columns:
            return []
        digests, _ = self.store.read_column(_SOURCES)
        return [about for about in self.store.metadata_many(digests) if about is not None]

    def _loaded(self) -> SummaryIndex:
        """The summaries of all chunks, read when first needed."""
        if self._index is None:
            index = SummaryIndex(self.store.width, self.summary.dims, self.summary.dtype)
            columns = self.store.columns
            if self._column in columns:
                index.put(*self.store.read_column(self._column))
            if any(name.startswith(_SUMMARIES) and name != self._column for name in columns):
                self._summarise_others(index)
            self._index = index
        return self._index

    def _summarise_others(self, index: SummaryIndex) -> None:
        """Add the chunks that were stored with another summary method."""
        chunks = {digest for about in self._source_records() for digest in self._split(about)}
        digests = self._digests(sorted(chunks))
        digests = digests[~index.contains(digests)]
        for at in range(0, len(digests), 4096):
            block = digests[at : at + 4096]
            payloads = self._read(block)
            metadata = self.store.metadata_many(block)
            named = [
                _with_names(payloads.get(bytes(digest), b""), (about or {}).get("places", []))
                for digest, about in zip(block, metadata, strict=True)
            ]
            index.put(block, self._summaries(named))

    def _read(self, digests: Digests | list[bytes]) -> dict[bytes, bytes]:
        """The payloads of those that are stored."""
        with self.store.get_many(digests) as records:
            found = zip(digests, records, strict=True)
            return {bytes(digest): payload for digest, payload in found if payload is not None}

    def _summaries(self, named: Iterable[bytes]) -> NDArray[Any]:
        """The rows to store for chunks with their names."""
        return pack(self.summary.encode([text.decode() for text in named]), self.summary.dtype)

    def _digests(self, digests: Sequence[bytes]) -> Digests:
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, self.store.width)


def _cut(
    cut: Callable[[str], Sequence[Chunk]], source: str, text: str
) -> Iterator[tuple[Chunk, bytes]]:
    """The chunks of a text, each with its UTF-8."""
    _expect_str("text", text)
    for chunk in cut(text):
        try:
            yield chunk, chunk.text.encode()
        except UnicodeEncodeError as error:
            at = chunk.start + error.start
            raise ValueError(
                f"source {source!r}: character {at} ({text[at]!r}) is half of a surrogate pair and "
                "has no UTF-8: decode the text with errors='replace'"
            ) from None


def _names(places: list[list[Any]]) -> list[str]:
    """The sources that say what a chunk is about: the first few of its own."""
    return list(dict.fromkeys(source for source, _, _ in places))[:_NAMES]


def _with_names(payload: bytes, places: list[list[Any]]) -> bytes:
    """A chunk as it is summarised and ranked: with the names of its sources, twice."""
    return payload + "\n".join(["", *_names(places)]).encode() * 2


def _source_payload(source: str) -> bytes:
    """What a source is stored as: no chunk has the same bytes."""
    _expect_str("source", source)
    try:
        return b"\xff" + source.encode()
    except UnicodeEncodeError:
        raise ValueError(f"source {source!r} holds half of a surrogate pair: rename it") from None


def _expect_str(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
