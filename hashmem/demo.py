"""The main job, from a folder of text to attention over it, with figures: `hashmem demo`.

The store is filled here and read in a new process, which finds there all it needs.
"""

import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hashmem import kernels
from hashmem.attention import attend, attend_chunks
from hashmem.hashhop import HashHop, solve
from hashmem.ingest import ingest
from hashmem.memory import Memory
from hashmem.store import MemoryStore
from hashmem.summaries import row_scales
from hashmem.text import STOP_WORDS, words

__all__ = ["run"]

QUESTIONS = [  # for the default corpus
    "decode a JSON document from a string",
    "send a mail message through an SMTP server",
    "where to insert an item in a sorted list",
]
TOKENS = 1_000_000  # of HashHop, 3 characters each
HOPS = 6
QUERIES = 10_000
MOST_KEYS = 1 << 14  # chunk summaries attended to
GROUP = 4  # neighbouring summaries that are chosen together
TOP = 128  # groups attended to
SCALE = 40.0  # of q·k: summaries have unit length, so 1/sqrt(d) would weigh all alike

Figures = dict[str, Any]


def run(*, corpus: str | None = None, store: str | None = None, as_json: bool = False) -> int:
    """Run the demo on `corpus`, keeping its store at `store`; print a table. 0 when all held."""
    started = perf_counter()
    if corpus is not None and not os.path.isdir(corpus):
        raise ValueError(f"there is no folder {corpus!r}")
    folder = sysconfig.get_path("stdlib") if corpus is None else corpus
    taken = store is not None and os.path.lexists(store)
    if store is not None and taken and not (os.path.isdir(store) and not os.listdir(store)):
        raise ValueError(f"{store} is no empty folder: the demo fills a new store")
    with tempfile.TemporaryDirectory(prefix="hashmem-demo-") as temporary:
        path = store or os.path.join(temporary, "demo.hashmem")
        figures: Figures = {"corpus": folder, "store": store, "kernels": kernels.active}
        figures["ingest"] = _ingest(folder, path)
        if not figures["ingest"]["has_words"]:
            raise ValueError(f"{folder} holds no text to work on")
        questions = QUESTIONS if corpus is None else []
        figures["read"] = _in_a_new_process(path, questions)
    figures["hashhop"] = _hashhop()
    figures["seconds"] = perf_counter() - started
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    figures["peak_bytes"] = peak * (1 if sys.platform == "darwin" else 1024)
    figures["ok"] = _all_held(figures)
    print(json.dumps(figures) if as_json else _table(figures))
    return 0 if figures["ok"] else 1


def _bar(total: float | None, what: str, unit: str) -> Any:
    return tqdm(
        total=total, desc=what, unit=unit, unit_scale=True, leave=False,
        disable=not sys.stderr.isatty(),
    )  # fmt: skip


def _timed(what: Callable[[], Any]) -> tuple[Any, float]:
    started = perf_counter()
    answer = what()
    return answer, perf_counter() - started


def _ingest(folder: str, path: str) -> Figures:
    with _bar(None, "ingest", " characters") as bar, MemoryStore(path) as store:
        memory = Memory(store)
        done, seconds = _timed(lambda: ingest(memory, folder, progress=bar.update))
        has_words = bool(done.chunks and _questions_from(memory))
        return {**done.to_dict(), "has_words": has_words, "seconds": seconds, **_sizes(store)}


def _sizes(store: MemoryStore) -> Figures:
    statistics = store.statistics()
    return {name: statistics[name] for name in ("payload_bytes", "storage_bytes")}


# -- reading, in a new process ------------------------------------------------------------------


def _in_a_new_process(path: str, questions: list[str]) -> Figures:
    command = [sys.executable, "-P", "-m", "hashmem.demo", path, json.dumps(questions)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def _read(path: str, questions: list[str]) -> Figures:
    opened, open_seconds = _timed(lambda: MemoryStore(path, readonly=True))
    with opened as store:
        memory = Memory(store)
        with _bar(len(store), "verify", " records") as bar:
            checked, verify_seconds = _timed(lambda: store.verify(bar.update))
        asked = questions or _questions_from(memory)
        _, load_seconds = _timed(lambda: memory.search(asked[0], k=1))
        return {
            "pid": os.getpid(),
            "records": len(store),
            "open_seconds": open_seconds,
            "verify": {"ok": checked.ok, "checked": checked.checked, "seconds": verify_seconds},
            "load_seconds": load_seconds,
            "searches": [_search(memory, question) for question in asked],
            "chain": _chain(memory),
            "attention": _attention(memory, asked),
        }


def _questions_from(memory: Memory) -> list[str]:
    """The richest line of each of up to three chunks from all over the corpus; [] without words."""
    digests, summaries = memory.store.read_column(memory.summary_column)
    digests = digests[summaries.any(axis=1)]
    last = len(digests) - 1
    chosen = digests[sorted({0, last // 2, last} if last >= 0 else ())]
    with memory.store.get_many(chosen) as records:
        texts = [record.decode() for record in records if record is not None]
    telling = [
        [[word for word in words(line) if word not in STOP_WORDS] for line in text.split("\n")]
        for text in texts
    ]
    return [" ".join(max(lines, key=len)[:12]) for lines in telling if any(lines)]


def _search(memory: Memory, question: str) -> Figures:
    hits, seconds = _timed(lambda: memory.search(question, k=3))
    found: Figures = {"question": question, "seconds": seconds, "found": bool(hits)}
    if hits:
        place = hits[0].places[0]
        found |= {"source": place.source, "line": place.first_line, "score": hits[0].score}
    return found


def _chain(memory: Memory) -> Figures:
    """The longest way along first imports, and every file's hop in one call."""
    store, names = memory.store, memory.sources()
    nodes = [memory.source_digest(name) for name in names]
    by_node = dict(zip(nodes, names, strict=True))
    paths = [
        store.trace(node)
        for node in tqdm(nodes, desc="trace", leave=False, disable=not sys.stderr.isatty())
    ]
    longest = max(paths, key=len)
    (_, found), seconds = _timed(lambda: store.hop(nodes, 3))
    chain = [by_node.get(bytes(digest), bytes(digest).hex()) for digest in longest]
    return {
        "chain": chain,
        "starts": len(nodes),
        "with_3_hops": int(found.sum()),
        "seconds": seconds,
    }


def _attention(memory: Memory, questions: list[str]) -> Figures:
    """Attention over chunk summaries as keys and values: seven eighths of them in groups to choose
    from, the last eighth as the local context that is always attended to."""
    _, stored = memory.store.read_column(memory.summary_column)
    stored = stored[:MOST_KEYS]
    keys = stored.astype(np.float32) * row_scales(stored)[:, None]  # (n, dims), unit rows
    queries = np.stack([memory.summary.encode_query(question) for question in questions])
    far, local = np.split(keys, [max(1, len(keys) * 7 // 8)])
    starts = np.arange(0, len(far), GROUP)
    offsets = np.append(starts, len(far))
    groups = np.add.reduceat(far, starts, axis=0) / np.diff(offsets)[:, None]
    plain = _softmax_attention(queries.astype(np.float64), keys.astype(np.float64))
    _, full_seconds = _timed(lambda: attend(queries, keys, keys, scale=SCALE))

    def chosen(top: int) -> Any:
        return attend_chunks(
            queries, far, far, offsets,
            top=top, summaries=groups, local=(local, local), scale=SCALE,
        )  # fmt: skip

    everything = chosen(len(groups))
    some, some_seconds = _timed(lambda: chosen(TOP))
    errors = np.linalg.norm(some.output - plain, axis=-1)
    return {
        "keys": len(keys),
        "dims": keys.shape[1],
        "groups": len(groups),
        "top": min(TOP, len(groups)),
        "seconds_full": full_seconds,
        "seconds_top": some_seconds,
        "all_selected_error": float(np.abs(everything.output - plain).max()),
        "captured": [float(share) for share in some.captured],
        "error": [float(error) for error in errors],
        "bound": [float(bound) for bound in some.bound],
    }


def _softmax_attention(queries: NDArray[np.float64], keys: NDArray[np.float64]) -> Any:
    """Full attention as its definition says, the keys being the values too."""
    scores = SCALE * queries @ keys.T
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ keys / weights.sum(axis=1, keepdims=True)


# -- HashHop ------------------------------------------------------------------------------------


def _hashhop() -> Figures:
    with _bar(4, "HashHop", " steps") as bar:
        sample, seconds = _timed(
            lambda: HashHop(tokens=TOKENS, hops=HOPS, queries=QUERIES, mode="direct")
        )
        _, text_seconds = _timed(sample.text)
        bar.update()
        solved = {}
        for method in ("table", "dictionary"):
            solved[method] = solve(sample, method).to_dict()
            bar.update()
        with (
            tempfile.TemporaryDirectory() as folder,
            MemoryStore(f"{folder}/hops.hashmem") as store,
        ):
            solved["store"] = solve(sample, "store", store=store).to_dict()
        bar.update()
    return {
        "characters": sample.characters,
        "pairs": len(sample),
        "hops": HOPS,
        "queries": QUERIES,
        "generate_seconds": seconds + text_seconds,
        **solved,
    }


# -- telling ------------------------------------------------------------------------------------


def _all_held(figures: Figures) -> bool:
    read, hashhop = figures["read"], figures["hashhop"]
    attention = read["attention"]
    return bool(
        read["verify"]["ok"]
        and all(search["found"] for search in read["searches"])
        and attention["all_selected_error"] < 1e-5
        and all(e <= b + 1e-5 for e, b in zip(attention["error"], attention["bound"], strict=True))
        and all(
            hashhop[method]["correct"] == hashhop["queries"]
            for method in ("table", "dictionary", "store")
        )
    )


def _table(figures: Figures) -> str:
    done, read, hashhop = figures["ingest"], figures["read"], figures["hashhop"]
    attention, chain = read["attention"], read["chain"]
    rate = done["characters"] / 1e6 / done["seconds"]
    lost = ", ".join(f"{n} {why}" for why, n in done["skipped"].items()) or "nothing"
    rows = [
        (
            "corpus",
            f"{done['files']:,} files, {done['characters'] / 1e6:.1f} M characters; "
            f"left out: {lost}",
        ),
        (
            "ingest",
            f"{done['chunks']:,} chunks → {done['records']:,} records, {done['links']:,} import "
            f"links in {done['seconds']:.1f} s, {rate:.1f} M characters/s",
        ),
        (
            "store",
            f"{done['storage_bytes'] / 1e6:.1f} MB for {done['payload_bytes'] / 1e6:.1f} MB of "
            "content, with summaries and links",
        ),
        (
            f"process {read['pid']}",
            f"reopened in {1e3 * read['open_seconds']:.0f} ms; {read['verify']['checked']:,} "
            f"records verified in {read['verify']['seconds']:.2f} s; summaries loaded in "
            f"{read['load_seconds']:.2f} s",
        ),
    ]
    for search in read["searches"]:
        place = f"{search['source']}:{search['line']}" if search["found"] else "nothing found"
        rows.append(
            (f"search, {1e3 * search['seconds']:.0f} ms", f"“{search['question']}” → {place}")
        )
    steps = chain["chain"]
    way = " → ".join(steps) if len(steps) > 1 else "no imports link these files"
    rows.append((f"hops: {len(steps) - 1}", way))
    rows.append(
        (
            "3 hops from all",
            f"{chain['starts']:,} files in {1e3 * chain['seconds']:.1f} ms, "
            f"{chain['with_3_hops']:,} get there",
        )
    )
    captured = ", ".join(f"{share:.1%}" for share in attention["captured"])
    rows += [
        (
            "attention, all",
            f"{attention['keys']:,} keys, {attention['groups']:,} groups merged with local ones: "
            f"equals full attention to {attention['all_selected_error']:.0e}",
        ),
        (
            f"attention, top {attention['top']}",
            f"captures {captured} of the mass; error {max(attention['error']):.4f} at most, "
            f"bound {max(attention['bound']):.4f}",
        ),
        (
            "HashHop",
            f"{hashhop['characters'] / 1e6:.1f} M characters, {hashhop['pairs']:,} pairs, "
            f"{hashhop['queries']:,} queries of {hashhop['hops']} hops",
        ),
    ]
    for method in ("table", "store", "dictionary"):
        solved = hashhop[method]
        hop = 1e9 * solved["follow_seconds"] / (hashhop["queries"] * hashhop["hops"])
        rows.append(
            (
                f"  {method}",
                f"{solved['correct']:,} right; text → links "
                f"{1e3 * solved['build_seconds']:.0f} ms, {hop:.0f} ns a hop",
            )
        )
    rows.append(
        (
            "all",
            f"{'everything held' if figures['ok'] else 'SOMETHING DID NOT HOLD'}; "
            f"{figures['seconds']:.1f} s, {figures['peak_bytes'] / 1e6:.0f} MB at most, "
            f"{figures['kernels']} kernels",
        )
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in rows)


if __name__ == "__main__":
    if len(sys.argv) == 3 and Path(sys.argv[1]).is_dir():  # the child that `run` starts
        print(json.dumps(_read(sys.argv[1], json.loads(sys.argv[2]))))
    else:
        sys.exit(run(corpus=sys.argv[1] if len(sys.argv) == 2 else None))
