"""How well search finds: chunking methods, summary sizes, and both stages, on real text.

    python bench/retrieval.py [--json PATH] [--quick]

The text is the source of Python's own standard library, without tests and installed packages. Two
tasks, each with one known answer:

- *description*: the first sentence of a function's docstring finds the function, every function's
  docstring having been cut out of the text first. A chunk is right when it holds half of the
  function, or is itself half filled by it.
- *line*: one line of five words or more finds a chunk that holds it, the words shuffled so that
  nothing but the words helps.

A third table says what a content-addressed store saves on a second version of every file, one line
inserted at a random place.
"""

import argparse
import ast
import json
import platform
import random
import statistics
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hashmem import Memory, MemoryStore, digest_many
from hashmem.retrieval import bm25, top_k, weigh_rare
from hashmem.summaries import HashedNgrams, SummaryMethod, pack, row_scales
from hashmem.text import (
    Chunk,
    HashedWords,
    TextFiles,
    chunk_content,
    chunk_lines,
    chunk_words,
    hash_words,
    is_stop_word,
    words,
)

SEED = 20261122
QUERIES = 1000  # of each task
CANDIDATES = 300
EXCLUDE = ("site-packages", "test", "tests", "idle_test", "lib2to3")

Cut = Callable[[str], list[Chunk]]
CHUNKERS: dict[str, Cut] = {  # in pairs of nearly equal mean size
    "lines, 28": lambda text: chunk_lines(text, 28),
    "words, 130": lambda text: chunk_words(text, 130),
    "content, 400 to 1600": lambda text: chunk_content(text, 400, 1600),
    "lines, 36": lambda text: chunk_lines(text, 36),
    "words, 165": lambda text: chunk_words(text, 165),
    "content, 500 to 2000": lambda text: chunk_content(text, 500, 2000),
}
DEFAULT = "content, 500 to 2000"
SUMMARIES = [
    (256, 0.0), (512, 0.0), (512, 0.25), (1024, 0.0), (1024, 0.25), (2048, 0.0),
]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A query and the lines of the source that answer it."""

    query: str
    source: str
    first: int
    last: int


def without_docstrings(source: str, text: str) -> tuple[str, list[Question]]:
    """The text without its functions' docstrings, and a question for each that was cut."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return text, []
    lines = text.splitlines(keepends=True)
    if len(lines) != text.count("\n") + (not text.endswith("\n")):
        return text, []  # form feeds and the like: other line numbers than ours
    described = []
    kept = np.ones(len(lines) + 1, np.int64)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) > 1:
            described_by = ast.get_docstring(node)
            if described_by:
                kept[node.body[0].lineno : (node.body[0].end_lineno or 0) + 1] = 0
                described.append((described_by, node.lineno, node.end_lineno or 0))
    kept[0] = 0
    line_now = np.cumsum(kept)
    questions = []
    for description, first, last in described:
        query = " ".join(description.split("\n\n")[0].split(". ")[0].split())
        if len(words(query)) >= 4:
            questions.append(Question(query, source, int(line_now[first]), int(line_now[last])))
    return "".join(line for line, keep in zip(lines, kept[1:], strict=True) if keep), questions


def line_questions(source: str, text: str, choose: random.Random) -> list[Question]:
    """One question from a random line of the text, its words shuffled."""
    lines = [(n, line) for n, line in enumerate(text.split("\n"), 1) if len(words(line)) >= 5]
    if not lines:
        return []
    questions = []
    for n, line in choose.sample(lines, min(3, len(lines))):
        said = words(line)
        choose.shuffle(said)
        questions.append(Question(" ".join(said), source, n, n))
    return questions


class Index:
    """Chunks, their summaries as stored, and their words."""

    def __init__(self, files: list[tuple[str, str]], cut: Cut) -> None:
        self.chunks = [(source, chunk) for source, text in files for chunk in cut(text)]
        self.texts = [chunk.text for _, chunk in self.chunks]
        self.of_source: dict[str, list[int]] = {}
        for at, (source, _) in enumerate(self.chunks):
            self.of_source.setdefault(source, []).append(at)
        # As `Memory` has it: the source's name, twice, is part of what a chunk says.
        self.named = [f"{chunk.text}\n{source}\n{source}" for source, chunk in self.chunks]
        self.words = hash_words(self.named)

    def summarise(self, method: SummaryMethod) -> None:
        self.method = method
        self.rows = np.asfortranarray(pack(method.encode(self.named), method.dtype))
        self.scales = row_scales(self.rows)

    def by_summary(self, query: str, k: int) -> np.ndarray:
        asked = weigh_rare(self.method.encode_query(query), self.rows, len(self.rows))
        return top_k(self.rows, asked, k, self.scales)[0]

    def by_text(self, query: str, candidates: np.ndarray) -> np.ndarray:
        asked = hash_words([query]).hashes
        asked = asked[~is_stop_word(asked)]
        if not len(asked) or not len(candidates):
            return candidates[:0]
        offsets = self.words.offsets
        parts = [self.words.hashes[offsets[at] : offsets[at + 1]] for at in candidates]
        held = HashedWords(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))
        scores = bm25(asked, held, len(self.texts))
        return candidates[np.argsort(-scores, kind="stable")]

    def right(self, question: Question) -> set[int]:
        """The chunks that answer."""
        found = set()
        for at in self.of_source[question.source]:
            chunk = self.chunks[at][1]
            shared = min(chunk.last_line, question.last) - max(chunk.first_line, question.first) + 1
            shorter = min(
                chunk.last_line - chunk.first_line, question.last - question.first
            ) + 1  # fmt: skip
            if 2 * shared >= shorter:
                found.add(at)
        same = {self.texts[at] for at in found}
        return {at for at, text in enumerate(self.texts) if text in same} if found else found


def recall(index: Index, questions: list[Question]) -> dict[str, float]:
    """The share of questions answered among the first 1, 5, … of each stage."""
    counts = dict.fromkeys(
        ["summary@1", "summary@5", f"summary@{CANDIDATES}", "text@1", "text@5"], 0
    )
    elapsed = 0.0
    for question in questions:
        right = index.right(question)
        start = time.perf_counter()
        candidates = index.by_summary(question.query, CANDIDATES)
        ranked = index.by_text(question.query, candidates)
        elapsed += time.perf_counter() - start
        for name in counts:
            stage, k = name.split("@")
            found = candidates if stage == "summary" else ranked
            counts[name] += bool(right.intersection(found[: int(k)].tolist()))
    rates = {name: round(count / len(questions), 3) for name, count in counts.items()}
    return {**rates, "ms": round(elapsed / len(questions) * 1e3, 2)}


def stored_again(files: Iterable[tuple[str, str]], cut: Cut) -> float:
    """The share of characters that a second version of every file, one line longer, adds."""
    choose = random.Random(SEED)
    total = fresh = 0
    for _, text in files:
        lines = text.split("\n")
        lines.insert(choose.randrange(len(lines)), "    # a line that was not there before")
        known = {chunk.text for chunk in cut(text)}
        second = {chunk.text for chunk in cut("\n".join(lines))}
        total += sum(map(len, second))
        fresh += sum(map(len, second - known))
    return round(fresh / total, 3)


def rates(files: list[tuple[str, str]]) -> dict[str, float]:
    """Millions of characters a second of each stage, and a search in ms: medians of five."""
    size = sum(len(text) for _, text in files) / 1e6
    method = HashedNgrams()
    texts = [chunk.text for _, text in files for chunk in chunk_content(text)]
    payloads = [text.encode() for text in texts]

    def median_seconds(work: Callable[[], object]) -> float:
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    def store_all() -> None:
        with tempfile.TemporaryDirectory() as folder, MemoryStore(f"{folder}/s.hashmem") as store:
            Memory(store).add_many(files)

    stages: dict[str, Callable[[], object]] = {
        "chunk_content": lambda: [chunk_content(text) for _, text in files],
        "SHA-256": lambda: digest_many(payloads),
        "hash_words": lambda: hash_words(payloads),
        "summaries": lambda: pack(method.encode(texts), method.dtype),
        "Memory.add_many and commit to LMDB": store_all,
    }
    found = {name: round(size / median_seconds(work), 1) for name, work in stages.items()}
    memory = Memory(MemoryStore())
    memory.add_many(files)
    memory.search("warm up")
    query = "read the lines of a compressed file one by one"
    found["search, ms"] = round(median_seconds(lambda: memory.search(query)) * 1e3, 2)
    return {"chunks": len(texts), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="PATH", help="write the results there too")
    parser.add_argument(
        "--quick", action="store_true", help="100 queries, the default setting only"
    )
    options = parser.parse_args()
    queries = 100 if options.quick else QUERIES

    library = TextFiles(sysconfig.get_path("stdlib"), exclude=EXCLUDE)
    originals = [(name, text) for name, text in library if name.endswith(".py")]
    choose = random.Random(SEED)
    files, described, lines = [], [], []
    for source, text in originals:
        text, questions = without_docstrings(source, text)
        files.append((source, text))
        described += questions
        lines += line_questions(source, text, choose)
    described = choose.sample(described, min(queries, len(described)))
    lines = choose.sample(lines, min(queries, len(lines)))
    tasks = {"description": described, "line": lines}
    size = sum(len(text) for _, text in files)
    print(f"{len(files)} files, {size / 1e6:.1f} M characters; {queries} queries a task")

    results: dict[str, object] = {
        "seed": SEED, "queries": queries, "files": len(files), "characters": size,
        "python": platform.python_version(), "machine": platform.machine(),
    }  # fmt: skip
    rows = []
    settings = [(name, 512, 0.0) for name in CHUNKERS if name != DEFAULT]
    settings += [(DEFAULT, dims, weight) for dims, weight in SUMMARIES]
    if options.quick:
        settings = [(DEFAULT, 512, 0.0)]
    built: tuple[str, Index | None] = ("", None)
    for name, dims, weight in settings:
        if built[0] != name:
            built = (name, Index(files, CHUNKERS[name]))
        index = built[1]
        assert index is not None
        index.summarise(HashedNgrams(dims, weight))
        for task, questions in tasks.items():
            row = {
                "chunks": name, "mean": round(size / len(index.texts)), "dims": dims,
                "pair weight": weight, "task": task, **recall(index, questions),
            }  # fmt: skip
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    results["recall"] = rows
    results["rates, M characters a second"] = rates(originals)
    print("M characters a second:", results["rates, M characters a second"])
    if not options.quick:
        results["stored again"] = {
            name: stored_again(originals, cut) for name, cut in CHUNKERS.items()
        }
        print("share stored again:", results["stored again"])
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
