"""A judge behind an OpenAI-compatible address: hosted, vLLM, llama.cpp, Ollama."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from preflow.config.evaluation.judge import JudgeSettings
from preflow.errors import JudgeError, JudgeUnreachableError
from preflow.fingerprints.files import json_digest
from preflow.judges.verdict import Comparison, Verdict
from preflow.judges.wording import SYSTEM, messages, read_reply
from preflow.redaction import declare_secret

#: What passes: too many requests, and servers that are busy or starting.
_PASSING = (429, 500, 502, 503, 504, 529)
_KEY_REFUSED = (401, 403)


class EndpointJudge:
    """Asks a chat model for each verdict, some at a time, greedily."""

    def __init__(self, settings: JudgeSettings, section: str = "evaluation.judge") -> None:
        """Take the settings; the key is read from the environment.

        Args:
            settings: The judge.
            section: Where the recipe describes it, which errors name.

        Raises:
            JudgeError: The variable that ``api_key_env`` names is empty, or no HTTP header can hold its value.
        """
        self._settings, self.section, self.canaries = settings, section, settings.canaries
        self._url = f"{str(settings.base_url).rstrip('/')}/chat/completions"
        self._session = requests.Session()
        if settings.api_key_env is not None:
            self._session.headers["Authorization"] = f"Bearer {_key(settings.api_key_env, section)}"
        retry = Retry(
            total=settings.retries,
            status_forcelist=_PASSING,
            allowed_methods=["POST"],
            backoff_factor=0.5,
            respect_retry_after_header=True,
            raise_on_status=False,
        )
        adapter = HTTPAdapter(max_retries=retry, pool_maxsize=settings.concurrency)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    @property
    def identity(self) -> dict[str, Any]:
        """Address, model, what it is asked, and how it decodes; canaries tell where the model changed all the same."""
        return {
            "kind": "endpoint",
            "base_url": str(self._settings.base_url).rstrip("/"),
            "model": self._settings.model,
            "told": json_digest([SYSTEM, self._settings.criteria]),
            "max_tokens": self._settings.max_tokens,
            **({"revision": self._settings.revision} if self._settings.revision else {}),
        }

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        """See ``Judge``.

        Raises:
            JudgeUnreachableError: The address does not answer, or refuses.
        """
        with ThreadPoolExecutor(self._settings.concurrency) as pool:
            waiting = {pool.submit(self._ask, comparison): number for number, comparison in enumerate(asked)}
            try:
                for done in as_completed(waiting):
                    yield waiting[done], done.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask(self, comparison: Comparison) -> Verdict:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": messages(comparison, self._settings.criteria),
            "temperature": 0,
            "max_tokens": self._settings.max_tokens,
        }
        try:
            answer = self._session.post(self._url, json=body, timeout=self._settings.timeout)
        except requests.RequestException as error:
            raise JudgeUnreachableError(
                f"the judge at {self._url} does not answer ({type(error).__name__}): check "
                f"{self.section}.base_url and that the server runs; verdicts that are there are kept"
            ) from error
        if not answer.ok:
            setting = "api_key_env" if answer.status_code in _KEY_REFUSED else "model"
            raise JudgeUnreachableError(
                f"the judge at {self._url} answered {answer.status_code} after {self._settings.retries} retries "
                f"where they can help: check {self.section}.{setting} and the server's log; verdicts that are there "
                "are kept"
            )
        return read_reply(_content(answer))


def _key(variable: str, section: str) -> str:
    """The key that a variable holds, without the white space around it, as files of secrets end in a new line."""
    declare_secret(variable)
    key = os.environ.get(variable, "").strip()
    if not key:
        raise JudgeError(
            f"{section}.api_key_env names {variable}, which is empty: set it in the environment of the process that "
            "runs the recipe"
        )
    if not (key.isascii() and key.isprintable()):
        raise JudgeError(
            f"{section}.api_key_env names {variable}, whose value has a character that no HTTP header can hold (a new "
            "line, or one outside ASCII): set it to the key alone"
        )
    return key


def _content(answer: requests.Response) -> str:
    """The text of a chat completion; empty where there is none, which is unreadable."""
    try:
        return str(answer.json()["choices"][0]["message"]["content"] or "")
    except (ValueError, LookupError, TypeError):
        return ""
