"""Known families of chat templates, and the text that a recipe's ``chat_template`` stands for."""

import difflib
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from preflow.chat_templates.limits import FAULTS, LARGEST_NUMBER, has_large_number, limited_time
from preflow.errors import ConfigError
from preflow.foreign_files import read_text
from preflow.redaction import quoted

#: Ends of the names of files that hold a template.
_SUFFIXES = (".jinja", ".jinja2", ".j2", ".txt")
_JINJA = re.compile(r"\{[{%]")
_ONE_TURN = [{"role": "user", "content": "a"}]


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models with one chat template.

    Attributes:
        package: Who keeps the text: ``trl``, or ``preflow`` itself.
        file: The name of its file, without the suffix.
        end: The token that ends an answer, which the tokenizer must have; ``EOS`` where any tokenizer's own does.
    """

    package: Literal["preflow", "trl"]
    file: str
    end: str

    def text(self) -> str:
        """The template."""
        folder = Path(__file__).parent
        if self.package == "trl":
            spec = find_spec("trl")  # its folder alone: importing TRL takes seconds
            folder = Path(str(spec and spec.origin)).parent / "chat_templates"
        return (folder / f"{self.file}.jinja").read_text(encoding="utf-8")


#: Every family by the name that a recipe gives it.
FAMILIES = {
    "chatml": Family("preflow", "chatml", "<|im_end|>"),
    "command-r": Family("trl", "cohere", "<|END_OF_TURN_TOKEN|>"),
    "deepseek-r1-distill": Family("trl", "deepseek_r1_distill", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    "gemma": Family("trl", "gemma", "<end_of_turn>"),
    "gemma2": Family("trl", "gemma", "<end_of_turn>"),
    "gemma3": Family("trl", "gemma3", "<end_of_turn>"),
    "llama3": Family("trl", "llama3", "<|eot_id|>"),
    "llama3.1": Family("trl", "llama3_1", "<|eot_id|>"),
    "llama3.2": Family("trl", "llama3_2", "<|eot_id|>"),
    "mistral": Family("preflow", "mistral", "EOS"),
    "phi3": Family("trl", "phi3", "<|end|>"),
    "phi4": Family("preflow", "phi4", "<|im_end|>"),
    "qwen2.5": Family("trl", "qwen2_5", "<|im_end|>"),
    "qwen3": Family("trl", "qwen3", "<|im_end|>"),
    "qwen3-instruct-2507": Family("trl", "qwen3_instruct_2507", "<|im_end|>"),
    "tulu": Family("preflow", "tulu", "EOS"),
}


def template_text(given: str, folder: Path) -> str:
    """The Jinja text that a recipe's ``chat_template`` stands for.

    Args:
        given: A family's name (``llama-3`` is ``llama3``), a file, or Jinja text.
        folder: Where relative paths start.

    Raises:
        ConfigError: It is none of these, or the template does not compile or fails on one turn.
    """
    family = {_plain(name): family for name, family in FAMILIES.items()}.get(_plain(given))
    if family is not None:
        return family.text()
    if _JINJA.search(given):
        return _checked(given, "chat_template")
    path, named = folder / Path(given).expanduser(), quoted(given)
    if path.exists() and not path.is_dir():
        return _checked(read_text(path, "chat_template"), f"chat_template {path}")
    if given.endswith(_SUFFIXES) or "/" in given:
        raise ConfigError(
            f"chat_template is '{named}', but {path} is no file: give a file, a family's name ({', '.join(FAMILIES)}) "
            "or Jinja text"
        )
    near = difflib.get_close_matches(given.lower()[:80], FAMILIES, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(FAMILIES)}"
    raise ConfigError(f"chat_template is '{named}', which is no known family, no file and no Jinja text: {hint}")


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", name.lower())


def _checked(text: str, what: str) -> str:
    """The text, if it compiles and renders one user turn, from text or from parts.

    Raises:
        ConfigError: It does not; says why.
    """
    import jinja2
    from transformers.utils.chat_template_utils import render_jinja_template

    if has_large_number(text):
        raise ConfigError(
            f"{what} holds a number or a width above {LARGEST_NUMBER:,}: it could write a text of any length"
        )
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    failed = None
    for turns in (_ONE_TURN, parts):
        try:
            with limited_time():
                render_jinja_template(
                    [turns], chat_template=text, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
                )
        except jinja2.TemplateSyntaxError as error:
            raise ConfigError(
                f"{what} does not compile: {quoted(error.message or '')} (line {error.lineno})"
            ) from error
        except (jinja2.TemplateError, *FAULTS) as error:
            failed = failed or error
            if isinstance(error, TimeoutError):
                break
        else:
            return text
    raise ConfigError(f"{what} fails on one turn of the user: {quoted(str(failed))}") from failed
