"""Shared by all tests: no network, a home folder of their own, and a tiny random model with a real tokenizer."""

import functools
import gc
import json
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from hypothesis import settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from preflow.models.resolve import ModelRef

settings.register_profile("preflow", deadline=None)  # no test asserts a duration
settings.load_profile("preflow")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,!?'-\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--budget``: the seconds that the call of one test may take."""
    parser.addoption(
        "--budget", type=float, metavar="SECONDS", help="fail the run where the call of a test takes longer"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Fixtures that folders of tests share, and the libraries with them, where tests run.

    The process that hands tests out to others would import them for seconds before it starts those.
    """
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.fixtures.prepared_run")


def over_budget(config: pytest.Config) -> list[tuple[float, str]]:
    """Seconds and name of each test whose call took longer than the budget, longest first; none without a budget."""
    budget = config.getoption("--budget")
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    if budget is None or reporter is None:  # a worker of xdist has no reporter: the process that started it counts
        return []
    reports = [report for each in reporter.stats.values() for report in each if getattr(report, "when", None) == "call"]
    return sorted(((r.duration, r.nodeid) for r in reports if r.duration > budget), reverse=True)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test over the budget fails the run, not the test: on a busy machine every test takes longer."""
    if over_budget(session.config):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the tests over the budget."""
    for seconds, name in over_budget(config):
        terminalreporter.write_line(
            f"over the budget of {config.getoption('--budget'):g} s: {seconds:.1f} s {name}", red=True
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests, with a message, where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
    items[:] = long_ones_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Files of tests that start processes begin each of the equal parts that the workers of xdist are given.

    Short tests are left for the end, which a worker without work takes over one by one.
    """
    folders = {"integration", "faults"}
    files = list(dict.fromkeys(item.path for item in items if folders & set(item.path.parts)))
    # Those with real servers wait more than they compute: they begin, so that nothing waits for them at the end.
    files.sort(key=lambda file: not any(item.path == file and item.get_closest_marker("server") for item in items))
    short = iter([item for item in items if item.path not in files])
    ordered: list[pytest.Item] = []
    for start in range(workers):
        long = [item for file in files[start::workers] for item in items if item.path == file]
        ordered += [*long, *islice(short, max(0, len(items) // workers - len(long)))]
    return [*ordered, *short]


@pytest.fixture(autouse=True, scope="module")
def what_is_imported_stays() -> None:
    """Python looks for garbage among what the tests make, not among the million objects of the libraries.

    Models are freed before each load by a whole collection, which would otherwise be half of many a test's time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of each test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("PREFLOW_HOME", str(folder))
    return folder


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer with ChatML turns, whose pad token is its EOS token, as SmolLM2's is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([WORDS, "system user assistant please thank you order refund"], trainer)
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = CHATML
    return fast


def make_model(folder: Path, seed: int = 0, width: int = 32) -> Path:
    """A Llama of two layers with random weights and its tokenizer, saved as safetensors."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder, made once; tests must not write into it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> "ModelRef":
    """The tiny model as a stage is given it."""
    from preflow.config import Recipe
    from preflow.models.resolve import resolve_model
    from preflow.observer import Silent

    return resolve_model(Recipe(strategy="sft", model_name=str(tiny_folder)), Silent())


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as a user would."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def demonstration_rows(count: int) -> list[dict[str, Any]]:
    """Distinct demonstrations."""
    return [{"prompt": f"Where is order {i}?", "completion": f"Order {i} is on its way."} for i in range(count)]


def preference_rows(count: int) -> list[dict[str, Any]]:
    """Distinct pairs with a clear winner."""
    return [
        {
            "prompt": f"Can I return item {i} today?",
            "chosen": f"Of course, please bring item {i} back and we refund it.",
            "rejected": f"No idea about item {i}, ask somebody else some time.",  # glossary: allow nobody, somebody
        }
        for i in range(count)
    ]


def write_tiny_recipe(folder: Path, model: Path, training: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a two-stage recipe on a tiny model with its data; the recipe's file.

    Args:
        folder: Where to.
        model: The model's folder.
        training: Settings of both training stages.
        changes: Settings of the recipe.
    """
    write_jsonl(folder / "demonstrations.jsonl", demonstration_rows(24))
    write_jsonl(folder / "preferences.jsonl", preference_rows(40))
    common = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "save_steps": 2, **(training or {})}
    recipe: dict[str, Any] = {
        "name": "tiny",
        "model_name": str(model),
        "eval_split": 0.2,
        "max_seq_length": 256,
        "lora_r": 4,
        "sft": {"dataset": "demonstrations.jsonl", "learning_rate": 1e-2, **common},
        "dpo": {"dataset": "preferences.jsonl", "learning_rate": 1e-3, **common},
        "evaluation": {"kl_prompts": 2, "max_new_tokens": 6, "bootstrap_samples": 100},
    }
    file = folder / f"{changes.get('name', 'tiny')}.yaml"
    file.write_text(json.dumps({**recipe, **changes}), encoding="utf-8")
    return file


@pytest.fixture
def tiny_recipe_file(tmp_path: Path, tiny_folder: Path) -> Callable[..., Path]:
    """Writes a two-stage recipe on the tiny model with its data, and returns the file."""
    return functools.partial(write_tiny_recipe, tmp_path, tiny_folder)
