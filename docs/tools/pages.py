"""Parts of pages that are made from the code: settings, findings, commands, formats, packages, import rules.

A page names a part by ``<!-- generated: NAME -->`` on a line of its own; MkDocs calls :func:`on_page_markdown`, which
puts the part there. Nothing generated is committed, so that no page can be out of date.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.tools import tree
from docs.tools.words import GLOSSARY, ROOT
from flows.commands.explain import PAGE
from preflow.chat_templates.families import FAMILIES
from preflow.config import EvaluationSettings, Launch, Recipe
from preflow.config.base import COSMETIC
from preflow.config.evaluation.benchmarks import BenchmarkSettings
from preflow.config.evaluation.judge import JudgeSettings
from preflow.config.evaluation.promotion import Guards, PromotionSettings
from preflow.config.evaluation.review import ReviewSettings
from preflow.config.on_policy.augment import AugmentSettings
from preflow.config.rlhf import RewardModelSettings, RlooSettings
from preflow.config.training import DpoSettings, SftSettings, TrainingSettings
from preflow.config.validation import Dataset, ReadingSettings, ValidationSettings
from preflow.data.row_formats.examples import DEMONSTRATION_EXAMPLES, PREFERENCE_EXAMPLES, VERDICT_EXAMPLES
from preflow.data.row_formats.row import CHANGED
from preflow.data.row_formats.table import FORMATS as ROW_FORMATS
from preflow.data.row_formats.table import VERDICT
from preflow.diagnosis.diagnose import RUN_FINDINGS
from preflow.findings import FINDINGS, setting_of
from preflow.formats import COMPRESSIONS, FORMATS

#: In the order of the formats' kinds.
ROW_EXAMPLES = (DEMONSTRATION_EXAMPLES, PREFERENCE_EXAMPLES, VERDICT_EXAMPLES)
_MARKER = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
#: Settings by section of a recipe, with those of its class that another section's table shows already.
SECTIONS: dict[str, tuple[type[BaseModel], type[BaseModel] | None]] = {
    "": (Recipe, None),
    "launch": (Launch, None),
    "sft and dpo": (TrainingSettings, None),
    "sft": (SftSettings, TrainingSettings),
    "dpo": (DpoSettings, TrainingSettings),
    "dataset": (Dataset, None),
    "reading": (ReadingSettings, None),
    "validation": (ValidationSettings, None),
    "evaluation": (EvaluationSettings, None),
    "augment": (AugmentSettings, None),
    "reward_model": (RewardModelSettings, None),
    "rloo": (RlooSettings, None),
    "promotion": (PromotionSettings, None),
    "guards": (Guards, None),
    "judge": (JudgeSettings, None),
    "benchmarks": (BenchmarkSettings, None),
    "review": (ReviewSettings, None),
}
_BOUNDS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "at least {} long",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the generated parts into a page (a hook of MkDocs).

    Args:
        markdown: The page.

    Raises:
        KeyError: A part that nothing generates.
    """
    return _MARKER.sub(lambda marker: PARTS[marker[1]](), markdown)


def settings() -> str:
    """All settings, section by section."""
    parts = []
    for section, (model, shown) in SECTIONS.items():
        fields = {
            name: field
            for name, field in model.model_fields.items()
            if not (shown and name in shown.model_fields and _same(field, shown.model_fields[name]))
        }
        parts.append(f"## {f'`{section}:`' if section.isalpha() else section or 'Top level'}\n\n{_summary(model)}\n")
        parts.append(
            _table(
                ("setting", "type", "default", "meaning"),
                ((f"`{name}`", *_setting(name, field)) for name, field in fields.items() if not _is_section(field)),
            )
        )
    return "\n".join(parts)


def findings() -> str:
    """All findings of data validation, by what they are about."""
    scopes = {"form": "The form of a row", "row": "The text of a row", "rows": "Several rows", "set": "The whole set"}
    parts = []
    for scope, title in scopes.items():
        rows = []
        for name, finding in FINDINGS.items():
            if finding.scope == scope:
                names = dict.fromkeys(setting_of(name, kind) for kind in ("preferences", "demonstrations"))
                rows.append(
                    (
                        f"`{name}`",
                        f"`{finding.severity}`",
                        finding.what,
                        ", ".join(f"`{each}`" for each in names if each),
                    )
                )
        head = ("finding", "severity", "meaning", "threshold")
        used = len(head) if any(row[-1] for row in rows) else len(head) - 1
        parts.append(f"## {title}\n\n{_table(head[:used], (row[:used] for row in rows))}")
    return "\n".join(parts)


def run_findings() -> str:
    """All findings about a finished run."""
    return _table(
        ("finding", "what the measurements show"), ((f"`{name}`", what) for name, what in RUN_FINDINGS.items())
    )


def commands() -> str:
    """All subcommands of ``preflow`` with their arguments and options."""
    from flows.commands.app import make_app  # importing flows sets the environment of a run

    root = typer.main.get_command(make_app())
    return "\n".join(_command(root, "preflow", 2))


def template_families() -> str:
    """The families of chat templates that a recipe can name."""
    texts = {"trl": "the installed TRL", "preflow": "Preflow"}
    rows = (
        (f"`{name}`", "its EOS" if family.end == "EOS" else f"`{family.end}`", texts[family.package])
        for name, family in FAMILIES.items()
    )
    return _table(("name", "ends an answer with", "text kept by"), rows)


def troubleshooting() -> str:
    """The entry of every error, without the page's title."""
    return PAGE.read_text(encoding="utf-8").partition("\n")[2]


def formats() -> str:
    """All formats of data files."""
    packed = ", ".join(f"`{suffix}`" for suffix in COMPRESSIONS)
    rows = (
        (form.name, ", ".join(f"`{suffix}`" for suffix in form.suffixes), packed if form.compressible else "")
        for form in FORMATS
    )
    return _table(("format", "file names end in", "may be followed by"), rows)


def row_formats() -> str:
    """All formats of rows, with an example of each."""
    parts = []
    every = (*ROW_FORMATS.items(), ("rows with verdicts", (VERDICT,)))
    for (kind, forms), examples in zip(every, ROW_EXAMPLES, strict=True):
        rows = ((form.name, form.how, f"`{json.dumps(form.example)}`") for form in forms)
        parts.append(f"### {kind.capitalize()}\n\n{_table(('format', 'what becomes what', 'example'), rows)}")
        shown = ((each.called, each.form, f"`{json.dumps(each.row)}`") for each in examples)
        parts.append(_table(("as public files have it", "format", "example"), shown))
    changes = _table(
        ("what is changed on the way", "in words"), ((f"`{name}`", text) for name, text in CHANGED.items())
    )
    return "\n".join([*parts, "### What may be changed\n", changes])


def glossary() -> str:
    """All terms, and the private words with the terms to use."""
    read = yaml.safe_load(GLOSSARY.read_text("utf-8"))
    terms = _table(("term", "meaning"), ((f"**{each['term']}**", each["meaning"]) for each in read["terms"]))
    words = _table(("not", "but"), ((each["word"], each["use"]) for each in read["private_words"]))
    return f"{terms}\n## Words that are not used\n\n`make lint` fails on these.\n\n{words}"


def packages() -> str:
    """Every folder and what belongs there."""
    rows = ((f"`{folder.path}/`", folder.text) for folder in tree.folders() if folder.depth < tree.DEEP)
    return _table(("folder", "what belongs there"), rows)


def import_rules() -> str:
    """The import contracts of pyproject.toml."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    parts = []
    for contract in contracts:
        parts.append(f"**{contract['name']}**\n")
        if contract["type"] == "layers":
            inside = "".join(f" in `{each}`" for each in contract.get("containers", ()))
            parts.append(f"Each line{inside} may import the lines below it:\n\n```text")
            parts += [re.sub(r"[()]", "", layer) for layer in contract["layers"]]
            parts.append("```\n")
        elif contract["type"] == "forbidden":
            one = ", ".join(f"`{each}`" for each in contract["source_modules"])
            other = ", ".join(f"`{each}`" for each in contract["forbidden_modules"])
            parts.append(f"{one} may not import {other}.\n")
        else:
            parts.append(f"Holds in {', '.join(f'`{each}`' for each in contract['ancestors'])}.\n")
    return "\n".join(parts)


#: What a page may name.
PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "findings": findings,
    "run-findings": run_findings,
    "commands": commands,
    "formats": formats,
    "row-formats": row_formats,
    "template-families": template_families,
    "troubleshooting": troubleshooting,
    "glossary": glossary,
    "packages": packages,
    "import-rules": import_rules,
}


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    """A text as one cell: reStructuredText's literals as Markdown's, no line break, no column mark."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def _summary(model: type[BaseModel]) -> str:
    """The first sentence of a class's docstring."""
    return re.split(r"(?<=\.)\s", inspect.getdoc(model) or "")[0].replace("``", "`")


def _is_section(field: FieldInfo) -> bool:
    """Whether a field holds a section with settings of its own."""
    choices = get_args(field.annotation) or (field.annotation,)
    return any(isinstance(choice, type) and issubclass(choice, BaseModel) for choice in choices)


def _same(one: FieldInfo, other: FieldInfo) -> bool:
    """Whether two fields say the same."""
    return (one.annotation, one.default, one.description) == (other.annotation, other.default, other.description)


def _setting(name: str, field: FieldInfo) -> tuple[str, str, str]:
    """Type with bounds, default and meaning of a setting."""
    if not field.description:
        raise ValueError(f"the setting {name} has no docstring under it")
    bounds = [
        text.format(f"`{getattr(each, key)}`")
        for each in field.metadata
        for key, text in _BOUNDS.items()
        if getattr(each, key, None) is not None
    ]
    default = "required" if field.default is PydanticUndefined else f"`{_value(field.default)}`"
    meaning = field.description
    if field.json_schema_extra == COSMETIC:
        meaning += " *(Changing it recomputes nothing by itself.)*"
    return ", ".join([_type(field.annotation), *bounds]), default, meaning


def _value(value: Any) -> str:
    """A default as YAML writes it."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple | frozenset):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool):  # not by a table: 1.0 equals True, and would be its key
        return str(value).lower()
    return {None: "null", "": '""'}.get(value, str(value))


def _type(annotation: Any) -> str:
    """A type for people: choices one by one, ``null`` where a setting may be left open."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return ", ".join(f"`{str(each).lower() if isinstance(each, bool) else each}`" for each in inside)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in inside if each is not NoneType)) + (
            " or `null`" if NoneType in inside else ""
        )
    if origin in (tuple, list):
        return f"list of {_type(inside[0])}"
    if origin is dict:
        return f"table of {_type(inside[0])} to {_type(inside[1])}"
    names = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _command(command: Any, name: str, level: int) -> list[str]:
    """A command's help as Markdown, and that of its subcommands.

    Args:
        command: A command of click, or of the copy of click that Typer may bring.
        name: As it is typed.
        level: Of its heading.
    """
    context = command.context_class(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    text = inspect.cleandoc(command.help or "").replace("``", "`").replace("\b\n", "")
    parts = [f"{'#' * level} {name}\n\n```text\n{name} {usage}\n```\n", f"{text}\n"]
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    if rows := [(f"`{record[0]}`", record[1]) for record in records if record and record[0] != "--help"]:
        parts.append(_table(("option", "meaning"), rows))
    for child in command.list_commands(context) if hasattr(command, "list_commands") else ():
        _, found, _ = command.resolve_command(context, [child])
        if not found.hidden:
            parts += _command(found, f"{name} {child}", level if level > 2 else level + 1)
    return parts
