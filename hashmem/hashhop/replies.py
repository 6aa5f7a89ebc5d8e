"""The raw answers of endpoints, kept in a hashmem store by the digest of what was asked.

A request is the canonical JSON (sorted names, ASCII, no spaces) of the endpoint's address and all
that is sent to it: model, messages, tools, parameters. It is not kept, since its text may be a
gigabyte: a link leads from its digest to the record of its answer. That is msgpack,

    {"request": digest, "model": str, "body": bytes as they came, "seconds": float, "retries": int}

where the first entry keeps equal bodies apart. Every answer is committed before `keep` returns:
whatever ends the process then, it is there. Threads that commit at once share one sync.
"""

import json
import os
from contextlib import AbstractContextManager
from typing import Any

import msgpack

from hashmem.errors import CorruptStoreError
from hashmem.hashhop.ask import Answer, Endpoint


class Replies(AbstractContextManager["Replies"]):
    """Answers by request. `path` is the store's folder, made if missing; None keeps them in RAM.

    May be shared by threads. Raises what `hashmem.MemoryStore` raises.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, readonly: bool = False) -> None:
        from hashmem.store import MemoryStore

        self._store = MemoryStore(path, readonly=readonly)

    def digest(self, endpoint: Endpoint, request: dict[str, Any]) -> bytes:
        """Return what `request` to `endpoint` is kept under."""
        asked = {"endpoint": endpoint.base_url, "request": request}
        # ASCII, so that what is no UTF-8 has a digest as well.
        return self._store.digest(
            json.dumps(asked, sort_keys=True, separators=(",", ":")).encode("ascii")
        )

    def get(self, digest: bytes) -> Answer | None:
        """Return the answer to the request with `digest`, None where there is none.

        Raises `CorruptStoreError` where the stored answer is damaged.
        """
        ends, found = self._store.hop(digest, 1)
        if not found[0]:
            return None
        with self._store.get_many(ends, verify=True) as records:
            record = records[0]
        if record is None:  # deleted, and the link stays
            return None
        try:
            kept = msgpack.unpackb(record)
            if kept["request"] != digest:
                raise ValueError("it is another request's")
            return Answer(kept["body"], kept["seconds"], kept["retries"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStoreError(
                f"the record {bytes(ends[0]).hex()} is no answer that was kept here ({error}): "
                "take another folder for replies"
            ) from error

    def keep(self, digest: bytes, model: str, answer: Answer) -> None:
        """Keep `answer` to the request with `digest`: on disk when this returns."""
        record = {
            "request": digest,
            "model": model,
            "body": answer.body,
            "seconds": answer.seconds,
            "retries": answer.retries,
        }
        self._store.link(digest, self._store.put(msgpack.packb(record)))
        self._store.commit()

    def __len__(self) -> int:
        """The number of answers."""
        return len(self._store)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def __exit__(self, *exception: object) -> None:
        self.close()
