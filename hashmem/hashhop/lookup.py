"""An external memory as a tool of the model: `lookup(hash)` → the next hash, or null.

The pairs of a sample lie in hashmem's table, and the model calls for one hop at a time. What it
writes wrongly is told to it as the tool's answer, as a program would.
"""

import json
from typing import Any

import numpy as np

from hashmem.hashhop.chat import Call
from hashmem.hashhop.solvers import TableSolver

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": 'Returns the hash B of the line "A = B", given the hash A; null where no '
        "line begins with A.",
        "parameters": {
            "type": "object",
            "properties": {"hash": {"type": "string", "description": "the hash A"}},
            "required": ["hash"],
            "additionalProperties": False,
        },
    },
}


class Lookup:
    """The pairs of one text, to be looked up by calls. May be shared by threads."""

    def __init__(self, text: str, hash_length: int) -> None:
        self._solver = TableSolver(text)
        self._length = hash_length

    def next(self, source: str) -> str | None:
        """Return the hash that `source` leads to, None where it leads nowhere. O(1)."""
        if len(source) != self._length or not source.isascii():
            return None
        letters = np.frombuffer(source.encode(), np.uint8).reshape(1, -1)
        found = self._solver.follow(letters, (1,)).tobytes()
        return str(found, "ascii") if found[0] else None

    def answer(self, call: Call) -> str:
        """Return what the tool says to `call`: JSON, or words on what was wrong with it."""
        if call.name != "lookup":
            return f"error: there is no tool {call.name!r}, only lookup"
        try:
            arguments = json.loads(call.arguments)
        except (ValueError, RecursionError) as error:
            return f"error: the arguments are no JSON ({error})"
        if not isinstance(arguments, dict) or not isinstance(arguments.get("hash"), str):
            return 'error: the arguments must be {"hash": "…"}'
        return json.dumps(self.next(arguments["hash"]))
