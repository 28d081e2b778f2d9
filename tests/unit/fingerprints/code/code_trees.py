"""Small source trees, and the digest of one."""

from collections.abc import Collection
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from preflow.fingerprints.code import CodeGraph, SourceTree

#: A tree: file to text. Its root is ``run`` of ``main.py``.
Files = dict[str, str]


class Edit(NamedTuple):
    """One text of a tree that is replaced."""

    files: Files
    file: str
    old: str
    new: str

    def edited(self) -> Files:
        text = self.files[self.file]
        assert self.old in text or not self.old
        return {**self.files, self.file: text.replace(self.old, self.new) if self.old else text + self.new}


def digest(folder: Path, files: Files, root: str = "pkg.main:run", not_counted: Collection[str] = ()) -> str:
    """The digest of a root in a tree that consists of these files."""
    top = root.partition(".")[0]
    package = folder / f"tree-{len(list(folder.iterdir()))}" / top
    for name, text in {"__init__.py": "", **files}.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
    return CodeGraph(SourceTree({top: package}, as_imported=False), not_counted).digest(root)


HELPER = {
    "main.py": """
        from pkg.tools import twice
        LIMIT = 3
        def run(x): return twice(x) + _more(x)
        def _more(x): return x
    """,
    "tools.py": "def twice(x): return _two() * x\ndef _two(): return 2\n",
}
FACTORIAL = {
    "main.py": """
        def run(x): return even(x)
        def even(x): return x == 0 or odd(x - 1)
        def odd(x): return x != 0 and even(x - 1)
    """
}
TELLS = {
    "main.py": '''
        import logging
        import warnings
        logger = logging.getLogger(__name__)
        def run(x, observer, settings):
            """What it does."""
            if x < 0:
                text = f"{x} is below 0"
                raise ValueError(text + ": expected more")
            observer.note(f"x is {x}")
            logger.info("computed %s", x)
            warnings.warn("old")
            assert x < 7, "x is large"
            observer.score(x)
            return x
    '''
}
DYNAMIC = {
    "main.py": "from importlib import import_module\ndef run(x): return import_module('pkg.' + x).work()",
    "plugin.py": "def work(): return 1",
}
NAMED = {
    "main.py": "WHERE = 'pkg.plugin'\ndef run(x, load): return load(WHERE)",
    "plugin.py": "def work(): return 1",
}
HANDED_ON = {
    "main.py": "from pkg import plugin\ndef run(x): return getattr(plugin, x)()",
    "plugin.py": "def work(): return 1",
}
HANDED_ON_PACKAGE = {
    "main.py": "from pkg import inner\ndef run(x): return getattr(inner, x)()",
    "inner/__init__.py": "from pkg.inner.plugin import work",
    "inner/plugin.py": "def work(): return 1",
}
STARRED = {
    "main.py": "from pkg.tools import *\ndef run(x): return twice(x)",
    "tools.py": "def twice(x): return 2 * x\n",
}
STARRED_TWICE = {
    "main.py": "from pkg.first import *\nfrom pkg.second import *\ndef run(x): return twice(x) + thrice(x)",
    "first.py": "def twice(x): return 2 * x\n",
    "second.py": "def thrice(x): return 3 * x\n",
}
STARRED_PACKAGE = {
    "main.py": "from pkg.inner import twice\ndef run(x): return twice(x)",
    "inner/__init__.py": "from pkg.inner.tools import *",
    "inner/tools.py": "def twice(x): return 2 * x\n",
}
REEXPORTED = {
    "main.py": "from pkg.inner import twice\ndef run(x): return twice(x)",
    "inner/__init__.py": "from .deep import double as twice\n__all__ = ['twice']",
    "inner/deep.py": "def double(x): return 2 * x\ndef other(x): return x\n",
}
REGISTERED = {
    "main.py": "from pkg import rules\nfrom pkg.registry import RULES\ndef run(x): return RULES[x]()",
    "registry.py": "RULES = {}\ndef register(function): RULES[function.__name__] = function\n",
    "rules.py": "from pkg.registry import register\ndef first(): return 1\nregister(first)\n",
}
DECORATED = {**REGISTERED, "rules.py": "from pkg.registry import register\n@register\ndef first(): return 1\n"}
PATCHED = {
    "main.py": "from pkg import patch, tools\ndef run(x): return tools.twice(x)",
    "tools.py": "def twice(x): return 2 * x\n",
    "patch.py": "import pkg.tools as tools\ndef _thrice(x): return 3 * x\ntools.twice = _thrice\n",
}
DATACLASS = {
    "main.py": """
        from dataclasses import dataclass
        from typing import ClassVar
        @dataclass
        class Point:
            kind: str = "a"
            size: int = 1
        def run(x): return Point(x)
    """
}
PYDANTIC = {
    "main.py": """
        from pydantic import BaseModel
        class Point(BaseModel):
            size: int = 1
        def run(x): return Point(size=x)
    """
}
HINTS = {
    "main.py": """
        from typing import get_type_hints
        def run(x): return get_type_hints(_shape)
        def _shape(x: int) -> int: return x
    """
}
NESTED = {
    "main.py": "def run(x):\n    def inner(y):\n        return y + _one()\n    return inner(x)\ndef _one(): return 1\n",
}
CONDITIONAL = {
    "main.py": """
        import sys
        if sys.platform == "linux":
            def step(): return 1
        else:
            def step(): return 2
        try:
            from fast import add
        except ImportError:
            def add(x): return x + 5
        def run(x): return step() + add(x)
    """
}
CLASSES = {
    "main.py": "from pkg.base import Base\nclass Mine(Base):\n    weight = 4\ndef run(x): return Mine().value(x)",
    "base.py": """
        class Root:
            bias = 1
        class Base(Root):
            def value(self, x): return x * self.weight + self.bias
    """,
}
INNER_CLASS = {
    "main.py": """
        def run(x):
            class Rule:
                weight = 4
                if x > 1:
                    bias = 5
            return Rule
    """
}
SILENT = {
    "main.py": """
        def run(x, path):
            text = ", ".join(path.parts).strip() + str(x).lower()
            moved = path.replace("final")
            if x < 0:
                raise ValueError(text)
            return x
    """
}
USED_UP = {
    "main.py": """
        def run(rows):
            first = min(rows)
            if not rows:
                raise ValueError(first)
            return next(rows)
    """
}
OWN_LEN = {
    "main.py": """
        from pkg.tools import len
        def run(x):
            count = len(x)
            assert x, f"{count} rows"
            return x
    """,
    "tools.py": "SEEN = []\ndef len(x): return SEEN.append(x)\n",
}
READ_AS_LOCAL = {"main.py": "def run(x):\n    rate = 2\n    return eval('rate * x', {}, vars())\n"}
TWINS = {
    "main.py": """
        class Wide:
            size = 1
        class Tall:
            size = 1
        def run(x): return Wide() if x else Tall()
    """
}
DEFAULTS = {"main.py": "def run(x): return _scaled(x) + _moved(x)\n", "__init__.py": ""}
DEFAULTS["main.py"] += "def _scaled(x, by=2): return x * by\ndef _moved(x, *, to=5): return x + to\n"
SHADOWED = {
    "main.py": "def run(x):\n    step = x\n    def step(): return 1\n    return step()\ndef step(): return 2\n",
}
