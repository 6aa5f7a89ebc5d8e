"""One request to an OpenAI-compatible endpoint, asked until it is answered or given up.

A request is retried where another attempt may be answered: too many requests (429), a fault of
the server (5xx), a time-out (408, or no byte for `timeout` seconds), a conflict (409), a broken
connection, a reply that was cut off or is no chat completion. Between attempts it waits
0.5 · 2^k seconds, 60 at most, of which a random half may be left out, so that many that failed
together do not come back together; and where the endpoint says how long (Retry-After), so long
first. Everything else is refused for good, the same for every further request: `EndpointError`.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from hashmem.errors import HashMemError
from hashmem.hashhop.chat import parse_completion

FIRST_WAIT = 0.5  # seconds
LONGEST_WAIT = 60.0  # seconds, of our own accord
LONGEST_ASKED_WAIT = 600.0  # seconds; whoever asks for more is given up

_RETRIED = {408, 409, 429}  # and all from 500 on
_SHOWN = 300  # characters of the endpoint's message that an error shows
_REMEDIES = {
    400: "the endpoint does not take such a request: a prompt longer than the model's window, or "
    "parameters that this model does not have",
    401: "pass the endpoint's API key (on the command line: set OPENAI_API_KEY, or name another "
    "variable with --api-key-env)",
    402: "the account has no credit left: what was answered is kept, run again when it has",
    403: "the API key may not use this model or this endpoint: pass another",
    404: "check base_url, which mostly ends in /v1, and the model's name",
    413: "the prompt is larger than the endpoint takes: make a smaller sample",
    422: "the endpoint does not take such a request: check the parameters",
    429: "the account's quota is used up: what was answered is kept, run again when there is more",
}  # status → what to do


class EndpointError(HashMemError, OSError):
    """The endpoint refuses this and all like it: a wrong key, address, model or parameter."""


class NoAnswer(Exception):
    """No attempt was answered; the message is why the last one was not."""

    def __init__(self, reason: str, retries: int) -> None:
        super().__init__(reason)
        self.retries = retries


class Stopped(Exception):
    """The run has ended for another reason."""


class _TryAgain(Exception):
    """An attempt failed in a way that the next may not."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait  # seconds the endpoint asked for


@dataclass(frozen=True)
class Answer:
    """A chat completion as it came, and what it took to get."""

    body: bytes
    seconds: float  # from the request to the whole reply, in the attempt that was answered
    retries: int  # attempts before that


class Endpoint:
    """A model behind an OpenAI-compatible address, with the parameters it is asked with.

    base_url:    where it is, such as "http://localhost:8000/v1".
    api_key:     None for endpoints that take none; OPENAI_API_KEY is not looked at.
    temperature: None leaves it to the endpoint, as some models insist.
    max_tokens:  of a reply; None leaves it to the endpoint. For models that want
                 `max_completion_tokens`, pass None and that in `parameters`.
    parameters:  further ones of the request, such as {"seed": 1}. They go into the request's
                 digest too, so a further one asks anew what was answered.
    timeout:     seconds without a byte after which an attempt is given up.
    retries:     attempts after the first.
    sleep, clock: for tests: wait so many seconds; seconds that pass.

    May be shared by threads. Raises `ValueError` on what no endpoint can have, and `ImportError`
    on the first request where the official client is missing.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        temperature: float | None = 0.0,
        max_tokens: int | None = 1024,
        parameters: Mapping[str, Any] | None = None,
        timeout: float = 600.0,
        retries: int = 6,
        sleep: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"base_url {base_url!r} is no address: it takes one such as "
                "http://localhost:8000/v1"
            )
        if not model:
            raise ValueError("the model has no name: pass the one that the endpoint knows it by")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable() and api_key):
            # Not shown: it is most of a key.
            raise ValueError(
                "the API key is empty or holds what no HTTP header can, such as a newline: was it "
                "copied whole and alone?"
            )
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"a reply takes at least 1 token, not {max_tokens}")
        if retries < 0 or not timeout > 0:
            raise ValueError(
                f"retries are 0 or more and the timeout is longer than 0 seconds, not {retries} "
                f"and {timeout}"
            )
        fixed = {"model", "messages", "tools", "stream", "n"} & set(parameters or ())
        if fixed:
            raise ValueError(
                f"{min(fixed)!r} is not for parameters to set: the runner does, or needs it unset"
            )
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.retries = retries
        self.timeout = timeout
        self._parameters = dict(parameters or {})
        for name, value in (("temperature", temperature), ("max_tokens", max_tokens)):
            if value is not None:
                self._parameters.setdefault(name, value)
        self._api_key = api_key
        self._sleep = sleep
        self._clock = clock
        self._jitter = random.Random()  # of its own: the global one is the user's to seed
        self._lock = threading.Lock()
        self._opened: Any = None

    def __repr__(self) -> str:  # without the key
        return f"Endpoint({self.base_url!r}, {self.model!r})"

    @property
    def reply_limit(self) -> int | None:
        """The most tokens that a reply may have; None: no more is known than the endpoint's."""
        for name in ("max_completion_tokens", "max_tokens"):
            if isinstance(limit := self._parameters.get(name), int):
                return limit
        return None

    def request(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Return the whole request that `messages` make, fit for JSON."""
        given = {"tools": tools} if tools else {}
        return {"model": self.model, "messages": messages, **given, **self._parameters}

    def ask(self, request: dict[str, Any], stop: threading.Event | None = None) -> Answer:
        """Return the answer to `request`, from as many attempts as it takes.

        `stop` ends the waiting. Raises `NoAnswer` after the last attempt, `EndpointError` where
        no further one would help, `Stopped`.
        """
        stop = stop or threading.Event()
        attempt = 0
        while not stop.is_set():
            begun = self._clock()
            try:
                body = self._send(request)
                return Answer(body, self._clock() - begun, attempt)
            except _TryAgain as error:
                if attempt == self.retries:
                    raise NoAnswer(str(error), attempt) from None
                if error.wait > LONGEST_ASKED_WAIT:
                    asked = f"{error}; it asks to wait {error.wait:.0f} seconds"
                    raise NoAnswer(asked, attempt) from None
                own = min(LONGEST_WAIT, FIRST_WAIT * 2.0**attempt)
                wait = error.wait + own * (0.5 + 0.5 * self._jitter.random())
            attempt += 1
            (self._sleep or stop.wait)(wait)
        raise Stopped

    def close(self) -> None:
        """Close the connections; a further request opens new ones."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _client(self) -> Any:
        with self._lock:
            if self._opened is None:
                try:
                    import openai
                except ImportError as error:
                    raise ImportError(
                        'asking an endpoint takes its client: pip install "hashmem[openai]"'
                    ) from error
                self._opened = openai.OpenAI(
                    base_url=self.base_url,
                    api_key=self._api_key or "none",  # the client insists on one
                    timeout=self.timeout,
                    max_retries=0,  # counted and waited for here
                )
            return self._opened

    def _send(self, request: dict[str, Any]) -> bytes:
        """The body of a chat completion, from one attempt."""
        client = self._client()
        import openai

        rest = {name: request[name] for name in request if name not in ("model", "messages")}
        try:
            response = client.chat.completions.with_raw_response.create(
                model=request["model"], messages=request["messages"], extra_body=rest
            )
            body = bytes(response.http_response.content)
        except openai.APIStatusError as error:
            raise self._judge(error) from None
        except openai.APITimeoutError:
            raise _TryAgain(f"no reply within {self.timeout:g} seconds") from None
        except openai.APIConnectionError as error:
            raise _TryAgain(f"no connection: {error.__cause__ or error}") from None
        try:
            parse_completion(body)
        except ValueError as error:
            raise _TryAgain(self._without_key(str(error))) from None
        return body

    def _judge(self, error: Any) -> Exception:
        """What a status that is no success means: another attempt, or the end."""
        status = int(error.status_code)
        told = self._without_key(str(error))[:_SHOWN]
        if (status in _RETRIED or status >= 500) and error.code != "insufficient_quota":
            return _TryAgain(told, asked_wait(error.response.headers))
        remedy = _REMEDIES.get(status, "the endpoint refuses the request")
        return EndpointError(f"{self.base_url} answers {status}: {remedy} ({told})")

    def _without_key(self, text: str) -> str:
        """What endpoints say of a wrong key may hold it."""
        return text.replace(self._api_key, "(the key)") if self._api_key else text


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that the endpoint asks to wait, 0 where it does not (RFC 9110, section 10.2.3)."""
    asked = headers.get("retry-after", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0  # not NaN
