"""The wire format of chat completions: a reply's body → what it says.

Only what every OpenAI-compatible endpoint writes is relied on: `choices[0].message`, with `content`
or `tool_calls`. `finish_reason` and `usage` may be missing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SHOWN = 200  # characters of a foreign body that an error shows


@dataclass(frozen=True)
class Call:
    """A call of a tool that the model asks for."""

    id: str
    name: str
    arguments: str  # JSON, if the model wrote it well


@dataclass(frozen=True)
class Completion:
    """What one reply says and what it took; tokens are None where the endpoint does not tell."""

    text: str
    calls: tuple[Call, ...]
    cut_off: bool  # it ended at the limit of tokens and not by itself
    prompt_tokens: int | None
    completion_tokens: int | None

    def message(self) -> dict[str, Any]:
        """Return the assistant's message for the next request of the conversation."""
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in self.calls
        ]
        return {"role": "assistant", "content": self.text or None, "tool_calls": calls}


def parse_completion(body: bytes) -> Completion:
    """Return what the body of a reply says. Raises `ValueError` where it is no chat completion."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the reply is no JSON: {error}") from None
    try:
        choice = found["choices"][0]
        message = choice["message"]
        text = _text(message.get("content"))
        calls = tuple(_call(i, call) for i, call in enumerate(message.get("tool_calls") or ()))
        cut_off = choice.get("finish_reason") == "length"
    except (AttributeError, IndexError, KeyError, TypeError):
        # Some endpoints answer 200 with {"error": …} when one behind them fails.
        shown = body[:_SHOWN].decode("utf-8", "replace")
        raise ValueError(f"the reply is no chat completion: {shown!r}") from None
    usage = found.get("usage")
    prompt, completion = (_tokens(usage, f"{which}_tokens") for which in ("prompt", "completion"))
    return Completion(text, calls, cut_off, prompt, completion)


def _text(content: Any) -> str:
    """The text of a message, which may be null or come in parts; as it can be sent back."""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content if part.get("type") == "text")
    if content is not None and not isinstance(content, str):
        raise TypeError
    return _sendable(content or "")


def _call(i: int, call: Any) -> Call:
    function = call["function"]
    name, arguments = function["name"], function.get("arguments") or ""
    if not isinstance(name, str):
        raise TypeError
    if not isinstance(arguments, str):  # some endpoints have read the JSON already
        arguments = json.dumps(arguments)
    given = str(call.get("id") or f"call_{i}")
    return Call(_sendable(given), _sendable(name), _sendable(arguments))


def _sendable(text: str) -> str:
    """Without halves of surrogate pairs, which JSON may hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _tokens(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if type(count) is int and count >= 0 else None
