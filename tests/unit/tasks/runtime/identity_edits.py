"""Edits of the tree: those that change no number, and those that decide one, each with the stages that must miss."""

from preflow.specs import STAGES
from tests.unit.source_copies import LAUNCHED, STORE

TRAINING = {"sft", "tune", "dpo", "launched sft", "launched dpo"}
#: What computes log-probs with a model, and the store of these; answers are kept under the same identity of a model.
SCORING = {"reference", "launched reference", "evaluate", "benchmarks", "sample", STORE}
MODEL = TRAINING | SCORING
DPO = {"dpo", "launched dpo"}
#: DPO and the range test of its learning rate, which trains alike but keeps nothing.
PAIRS = DPO | {"tune"}
SFT = {"sft", "launched sft"}
REFERENCE = {"reference", "launched reference"}
#: A classifier that Preflow trained is a judge, and sees the tokens of its training.
JUDGES = {"judge", "judge_answers"}
REWARDS = {"reward_model"}
RLOO = {"rloo"}
ALL = {*STAGES, *LAUNCHED, STORE}

#: What changes, in which file, from what to what.
HITS = {
    "a comment": ("preflow/models/packed", "import torch\n", "import torch  # the library\n"),
    "a docstring of a module": ("preflow/maths", '"""Log-probabilities of', '"""Log-probs of'),
    "a docstring of a function": ("preflow/models/adapters.py", '"""Making and saving', '"""Saving and making'),
    "formatting": ("preflow/maths", "(log_p - log_q)).sum(-1)", "(\n    log_p - log_q)\n    ).sum(-1)"),
    "an error's text": ("preflow/maths", "needs at least one value", "needs one value at least"),
    "an error's longer text": ("preflow/dpo", "the policy does not start from the ", "the policy starts not from the "),
    "an error's text made by a function": ("expectations/gate.py", "the data are unfit", "these data are unfit"),
    "an error's text in a validator": ("preflow/config", "max_steps is 0: expected", "max_steps: expected"),
    "an error's text made by a helper": ("preflow/training", "the step was too large", "the step is too large"),
    "an error's text made by a helper's helper": ("preflow/training", "the last checkpoint is kept", "one is kept"),
    "an assertion's text": ("preflow/stages", "needs a recipe with an SFT section", "needs recipe.sft"),
    "a note": ("preflow/stages", "rows are padded to the longest", "rows are filled up to the longest"),
    "a note of several lines": ("preflow/training", ": out of memory with ", ": no memory for "),
    "a note in a lambda": ("preflow/dpo", "out of memory proving", "no memory to prove"),
    "a progress line": ("preflow/stages", "model on demonstrations", "model over demonstrations"),
    "an annotation": ("preflow/maths", "targets: Tensor, mask: Tensor | None", "targets: object, mask: object"),
    "an annotation of a local name": ("preflow/stages", "report: dict[str, dict[str, Any]]", "report: Any"),
    "a constant of the estimates": ("preflow/estimates/flops.py", "2 * ", "3 * "),
    "a function of the estimates": ("preflow/estimates/memory.py", "return ", "return 0 and "),
    "a check of settings": ("preflow/config", "if self.max_steps == 0:", "if self.max_steps == -7:"),
    "an advice": ("preflow/config", "if rate > high", "if rate >= high"),
    "a check of a launch": ("preflow/config", 'precision != "no"', 'precision == "fp16"'),
    "another packaged model's pin": ("preflow/models/packaged.py", "sha256=", 'sha256="0" + '),
    "the export of a model": ("preflow/models/merge.py", "return ", "return None or "),
    "the command that shows the store": ("preflow/logprobs/cli.py", "typer.", "not_typer."),
    "where files are kept": ("preflow/environment.py", '"models"', '"base-models"'),
    "an error's class that nothing uses": (
        "preflow/errors.py",
        "class ConfigError",
        "class Unused: ...\n\nclass ConfigError",
    ),
    "a constant that nothing uses": (
        "preflow/models",
        "@torch.no_grad()",
        "_UNUSED = 3\n@torch.no_grad()",
    ),
    "a helper's name": ("preflow/maths", "_with_others", "_and_one_for_the_rest"),
    "a constant's name": ("preflow/data/quality/sets", "_SURELY", "_ENOUGH"),
    "a reason that a function gives": ("preflow/models/packed", "takes no layout; use", "knows no layout; use"),
    "a reason in a table": ("preflow/models/packed", "its norms add 1 to", "its norms add one to"),
    "a note that a function gives": ("preflow/models/cpu", "which takes longer", "which is slower"),
    "how rows are counted in a note": ("preflow/data/tokens", '_listed("dropped"', '_listed("left out"'),
    "the digest of a whole recipe": ("preflow/config/recipe.py", 'self.model_dump(mode="json"))', "self.seed)"),
    "the identity of a launch": (
        "preflow/config",
        'self.num_processes,\n            "config"',
        '1,\n            "config"',
    ),
    "how often a stage is tried": ("tasks", "retries=2", "retries=3"),
    "how long a stage may take": ("tasks", "timeout_seconds=", "timeout_seconds=2 * "),
    "which trouble may pass": ("tasks/runtime/stage.py", "OSError | ", ""),
    "what is tracked": ("tasks/tracking", '"host" not in tags', '"node" not in tags'),
    "what is reported": ("tasks/runtime/reporting.py", "{what}: done in", "{what} took"),
    "how a version is found": ("tasks/runtime/libraries.py", "return version(name)", 'return f"v{version(name)}"'),
    "fetching the base model": ("tasks/fetch.py", "return base", "return base or None"),
    "an import": ("preflow/maths", "import torch\n", "import preflow.maths.intervals\nimport torch\n"),
}

MISSES = {
    "the log-prob of a token": ("preflow/maths", "picked - torch.", "picked + torch.", SCORING | DPO | RLOO),
    "a limit of the start-up checks": (
        "preflow/maths",
        "torch.float32: Limits(",
        "torch.float32: Limits(2 * ",
        DPO | RLOO,
    ),
    "the KL of an evaluation": ("preflow/maths", "p * (log_p - log_q)", "p * log_p", {"evaluate"}),
    "the KL of a training": ("preflow/maths", "log_p.exp() * (log_p", "log_p.exp() * (2 * log_p", PAIRS | RLOO),
    "a helper's number": ("preflow/maths", "min=1e-7", "min=1e-6", PAIRS | RLOO),
    "an interval": (
        "preflow/maths",
        "(1 + confidence) / 2)",
        "(1 + confidence) / 3)",
        {"validate", "evaluate", "benchmarks"} | JUDGES | REWARDS,
    ),
    "a comparison of a test": ("preflow/maths", "return beta * ", "return 2 * beta * ", {"evaluate"}),
    "a row that is read": (
        "preflow/data/files",
        "def from_quarantine",
        "@str\ndef from_quarantine",
        {"validate", "sample"},
    ),
    "a spelling of a prompt": (  # decides which rows are one prompt: one split, and one cluster of an interval
        "preflow/data/text.py",
        '" ".join(text.lower().split())',
        "text.lower()",
        {"validate", "evaluate", "sample"} | REWARDS | RLOO,
    ),
    "the split": ("preflow/data", "_BITS = 52", "_BITS = 48", {"validate", "sample"}),
    "a table of words": (
        "preflow/data/quality/wording",
        "not no never none",
        "not no never",
        {"validate"},
    ),
    "a threshold without a setting": (
        "preflow/data/quality/sets",
        "_SURELY = 99",
        "_SURELY = 98",
        {"validate"},
    ),
    "what follows from a finding": ("preflow/findings.py", '"set_aside"', '"warn"', {"validate"}),
    "how a severity is chosen": ("preflow/config", "FINDINGS[finding].severity)", '"off")', {"validate"}),
    "a suite": ("expectations/suites", "strict_max=", "strict_max=not ", {"validate"}),
    "a report's style": ("expectations/report", "max-width:960px", "max-width:900px", {"validate"}),
    "the tokens of a row": (
        "preflow/data/tokens",
        "add_special_tokens=False",
        "add_special_tokens=True",
        {"validate", "lengths", "evaluate", "benchmarks", "sample"} | SFT | REFERENCE | DPO | JUDGES | REWARDS | RLOO,
    ),
    "the pairs that are read": ("preflow/data/validated.py", "yield ", "yield 0 or ", REFERENCE),
    "where rows are read": (
        "preflow/data/validated.py",
        '.jsonl"',
        '.rows"',
        ALL - PAIRS - {STORE, "benchmarks", "pair"},
    ),
    "the loading of weights": (
        "preflow/models/loading.py",
        "return model.eval()",
        "return model",
        MODEL | REWARDS | RLOO,
    ),
    "a precision": (
        "preflow/models/precision.py",
        "torch.bfloat16 if wants",
        "torch.float16 if wants",
        (MODEL | REWARDS) - {STORE} | RLOO,
    ),
    "autocast": ("preflow/models/precision.py", "enabled=False", "enabled=True", MODEL | REWARDS | RLOO),
    "a fresh adapter": (
        "preflow/models/adapters.py",
        "torch.manual_seed(seed)",
        "torch.manual_seed(0)",
        TRAINING | RLOO,
    ),
    "the packed layout": ("preflow/models/packed", ".tril(", ".triu(", MODEL | RLOO),
    "packed attention": ("preflow/models/packed", '"longrope"', '"longer"', MODEL | RLOO),
    "a kernel of the CPU": ("preflow/models/cpu", 'ending == "RMSNorm" or', "", TRAINING),
    "a backward of the CPU": ("preflow/models/cpu", "hidden.sum(-1)", "hidden.sum(0)", TRAINING),
    "a merged adapter": ("preflow/models/cpu/lora_linear.py", "return ", "return 2 * ", MODEL | RLOO),
    "a training's arguments": (
        "preflow/training",
        '"logging_nan_inf_filter": False',
        '"fp16": True',
        TRAINING | REWARDS | RLOO,
    ),
    "the order of rows": ("preflow/training", "1_000_003", "1_000_033", TRAINING),
    "what makes memory smaller": ("preflow/training", "_FEW_TOKENS = 16", "_FEW_TOKENS = 8", TRAINING),
    "what a number is ruined by": (
        "preflow/training",
        "_KNOWING = 0.9",
        "_KNOWING = 0.8",
        TRAINING | REWARDS | RLOO,
    ),
    "what is kept of a training": ("preflow/dpo", "since) >= patience", "since) > patience", DPO),
    "what is measured of a training": ("preflow/dpo", "= 512", "= 256", PAIRS | RLOO),
    "how many pairs run together": ("preflow/config", "is None else 1\n", "is None else 2\n", PAIRS | RLOO),
    "the start-up checks": ("preflow/dpo", "used <= 1", "used <= 2", DPO | RLOO),
    "the pairs that DPO reads": (
        "preflow/logprobs/scored_pairs.py",
        "pa.float32()",
        "pa.float16()",
        PAIRS | REFERENCE | {"evaluate"} | RLOO,
    ),
    "the sum of a stored value": ("preflow/logprobs/fill.py", "[sum(row) for", "[max(row) for", SCORING | DPO | RLOO),
    "the key of a stored value": (
        "preflow/logprobs",
        '"inference_mode", ',
        "",
        REFERENCE | DPO | {"evaluate", "benchmarks", "sample"} | RLOO,
    ),
    "a figure": ("preflow/evaluation", "bins=24", "bins=25", {"evaluate"}),
    "an answer": ("preflow/evaluation", "_ANSWERS = 3", "_ANSWERS = 4", {"evaluate"}),
    "a measure": ("preflow/evaluation", "<= share * longer", "< share * longer", {"evaluate"}),
    "the reward of a row": ("preflow/rlhf", "found[part] = logits", "found[part] = -logits", REWARDS | RLOO),
    "an artifact's form": ("preflow/artifacts.py", "indent=1", "indent=2", ALL - {STORE}),
    "what a stage's task does": ("tasks/sft.py", 'in_processes("sft", run_sft)', "run_sft", SFT),
    "what the task of validation does": ("tasks/validate.py", "run_gate(spec, out, observer)", "pass", {"validate"}),
    "what surrounds every stage": ("tasks/runtime/stage.py", "work(spec, out, observer)", "print(out)", ALL - {STORE}),
    "what is done without a launch": (
        "tasks/runtime/processes.py",
        " work(spec, out, observer)\n",
        " pass\n",
        TRAINING - {"tune"},
    ),
    "what is done beside a launch": ("tasks/runtime/processes.py", "filled=distributed", "filled=True", REFERENCE),
    "what is tried with smaller batches": (
        "tasks/runtime/processes.py",
        "spec.recipe, stage, l",
        "None, stage, l",
        TRAINING - {"tune"},
    ),
    "what every rank does": ("preflow/stages/worker.py", "Path(out)", "Path(out).parent", set(LAUNCHED)),
    "what an error is caught as": (
        "preflow/errors.py",
        "TemplateError(DataError)",
        "TemplateError(PreflowError)",
        {"validate", "lengths", "evaluate", "benchmarks", "sample"} | SFT | REFERENCE | DPO | JUDGES | REWARDS | RLOO,
    ),
    "what a rank that trains does": (
        "preflow/stages/ranks.py",
        "distributed.shut_down()",
        "pass",
        {"launched sft", "launched dpo"},
    ),
    "what a rank that fills the store does": (
        "preflow/stages/ranks.py",
        "current_ranks().index == 0",
        "current_ranks().index == 1",
        {"launched reference"},
    ),
    "a launch": ("tasks/runtime", '"mixed_precision": "no"', '"mixed_precision": "fp16"', set(LAUNCHED)),
    "what a rank of a training does first": (
        "preflow/stages",
        "hours=2",
        "hours=3",
        {"launched sft", "launched dpo"},
    ),
    "what an import does": (
        "preflow/models/packaged.py",
        "PACKAGED = {",
        "hashlib.register(3)\nPACKAGED = {",
        ALL,
    ),
}
