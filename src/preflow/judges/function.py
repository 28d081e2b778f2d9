"""A judge that is a Python function: ``module:name`` of the environment, called with prompt and both answers."""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from preflow.config.evaluation.judge import JudgeSettings
from preflow.environment import trusted_judges
from preflow.errors import JudgeError
from preflow.fingerprints.files import json_digest
from preflow.judges.verdict import Comparison, Outcome, Verdict

#: Functions of Preflow's own.
_OWN = "preflow.judges.packaged:"


class FunctionJudge:
    """Calls ``name(prompt, first, second)``, which returns ``first``, ``second`` or ``tie``."""

    def __init__(self, settings: JudgeSettings, section: str = "evaluation.judge") -> None:
        """Import the function, which the process's environment must name as trusted.

        Args:
            settings: The judge.
            section: Where the recipe describes it, which errors name.

        Raises:
            JudgeError: It is not trusted, or there is none of that name.
        """
        self._name = settings.model
        if not settings.model.startswith(_OWN) and settings.model not in trusted_judges():
            raise JudgeError(
                f"{section}.model is the function {settings.model}, which would run here: who runs this process "
                f"trusts it by PREFLOW_TRUSTED_JUDGES={settings.model} in its environment"
            )
        try:
            self._function: Callable[[str, str, str], str] = pkgutil.resolve_name(settings.model)
        except (ImportError, AttributeError) as error:
            raise JudgeError(
                f"{section}.model is {settings.model!r}, which cannot be imported ({error}): expected "
                "module:name of a function that is installed in the environment of the process that runs the recipe"
            ) from error

    @property
    def identity(self) -> dict[str, Any]:
        """Its name and its source; what it calls is not followed."""
        return {"kind": "function", "model": self._name, "source": json_digest(inspect.getsource(self._function))}

    def verdicts(self, asked: Sequence[Comparison]) -> Iterator[tuple[int, Verdict]]:
        """See ``Judge``; a value that is no outcome is unreadable."""
        for number, comparison in enumerate(asked):
            said = str(self._function(comparison.prompt, comparison.first, comparison.second))
            known = said in {Outcome.FIRST, Outcome.SECOND, Outcome.TIE}
            yield number, Verdict(Outcome(said) if known else Outcome.UNREADABLE, said)
