"""What a registered model does when MLflow loads it: it checks its files, and answers chat messages.

MLflow copies this file into every version and runs the copy, so it needs torch, transformers, PEFT and MLflow alone.
The adapter is stored beside it. The base weights, and full weights, stay where they are: the version names their place,
which ``load_model(uri, model_config={"base": ...})`` changes, and the SHA-256 of their files, which are checked.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

Messages = list[dict[str, Any]]


class ChatModel(PythonModel):
    """Answers ``{"messages": [...]}`` as OpenAI's chat completions do; without ``temperature``, greedily."""

    def load_context(self, context: Any) -> None:
        """Load the model, if every file of it is what was registered.

        Raises:
            FileNotFoundError: A folder of weights is not where the version says.
            ValueError: A file of the model, or of its base, is another than the registered one.
        """
        from transformers import AutoTokenizer, GenerationConfig

        self.settings: dict[str, Any] = dict(context.model_config)
        if self.settings["trust_remote_code"] and os.environ.get("PREFLOW_ALLOW_REMOTE_CODE") != "1":
            raise ValueError("this model runs code of its own: set PREFLOW_ALLOW_REMOTE_CODE=1 where that is wanted")
        adapted = self.settings["weights"] is None
        folder = Path(context.artifacts["model"]) if adapted else _there(self.settings["weights"], "weights")
        manifest = json.loads(Path(context.artifacts["manifest"]).read_text(encoding="utf-8"))["files"]
        own = {name: entry["sha256"] for name, entry in manifest.items() if name.startswith("model/")}
        _require({name.removeprefix("model/"): digest for name, digest in own.items()}, folder)
        if adapted:
            _require(self.settings["base_files"], _there(self.settings["base"], "base"))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            str(folder), trust_remote_code=self.settings["trust_remote_code"]
        )
        self.model = self._load(folder, adapted)
        self.ends = GenerationConfig.from_pretrained(str(folder)).eos_token_id

    def _load(self, folder: Path, adapted: bool) -> Any:
        import torch
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        on_gpu = torch.cuda.is_available()
        narrow = on_gpu and self.settings["bf16"] and torch.cuda.is_bf16_supported()
        dtype = torch.bfloat16 if narrow else torch.float32
        options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True}
        weights = self.settings["base"] if adapted else str(folder)
        if self.settings["use_4bit"]:
            options["device_map"] = {"": "cuda:0" if on_gpu else "cpu"}
            options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )
        options["trust_remote_code"] = self.settings["trust_remote_code"]
        model: Any = AutoModelForCausalLM.from_pretrained(weights, **options)
        if adapted:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(folder))
        return (model if self.settings["use_4bit"] else model.to("cuda" if on_gpu else "cpu")).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """Answer one conversation, or each of a table's.

        Args:
            context: MLflow's.
            model_input: ``{"messages": [...]}`` with ``max_tokens``, ``temperature`` and ``seed`` if wanted; a list of
                messages; or a table with a column ``messages``. Its annotation tells MLflow that it has no schema.
            params: The same settings as beside the messages, which win.

        Returns:
            A chat completion, or a list of them for a table.
        """
        given: Any = model_input
        if isinstance(given, pd.DataFrame):
            return [self._answer(row, params or {}) for row in given.to_dict(orient="records")]
        request = {"messages": given} if isinstance(given, list) else given
        return self._answer(request, params or {})

    def _answer(self, request: Mapping[Any, Any], params: dict[str, Any]) -> dict[str, Any]:
        import torch
        from transformers import GenerationConfig

        asked = {name: value for part in (params, request) for name, value in part.items() if value is not None}
        prompt = prompt_ids(self.tokenizer, self.settings, [dict(message) for message in asked["messages"]])
        temperature = float(asked.get("temperature", 0.0))
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": asked.get("top_p", 1.0)}
            if asked.get("seed") is not None:
                torch.manual_seed(int(asked["seed"]))
        pad = self.tokenizer.pad_token_id
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=int(asked.get("max_tokens") or self.settings["max_tokens"]),
            eos_token_id=self.ends,
            pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
            **sampling,
        )
        self.model.generation_config = config  # a model's own would fill in what ours leaves at its default
        ids = torch.tensor([prompt], device=self.model.device)
        with torch.no_grad():
            made = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        answer = made[0, len(prompt) :].tolist()
        ends = self.ends if isinstance(self.ends, list) else [self.ends]
        return {
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.settings["name"],
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": self.tokenizer.decode(answer, skip_special_tokens=True).strip(),
                    },
                    "finish_reason": "stop" if answer[-1:] and answer[-1] in ends else "length",
                }
            ],
            "usage": {
                "prompt_tokens": len(prompt),
                "completion_tokens": len(answer),
                "total_tokens": len(prompt) + len(answer),
            },
        }


def prompt_ids(tokenizer: Any, settings: dict[str, Any], messages: Messages) -> list[int]:
    """What training gave the model before an answer to these turns.

    Args:
        tokenizer: The model's.
        settings: ``rendering`` is how the training rendered turns, as ``Renderer.settings`` gives it.
        messages: Turns that end with the user's.
    """
    rendering = settings["rendering"]
    if rendering["chat_template"] is None:
        ids: list[int] = tokenizer(messages[-1]["content"], add_special_tokens=False)["input_ids"]
        bos = tokenizer.bos_token_id
        return [bos, *ids] if rendering["adds_bos"] and ids[:1] != [bos] else ids
    turns = _fit(messages, rendering["system_turn"])
    if rendering["in_parts"]:
        turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    text = tokenizer.apply_chat_template(
        turns,
        chat_template=rendering["chat_template"],
        tokenize=False,
        add_generation_prompt=True,
        **rendering["values"],
    )
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _fit(messages: Messages, system_turn: str) -> Messages:
    """The turns with the system turn where training put it."""
    if messages[0]["role"] != "system" or system_turn == "template":
        return messages
    system, first, *later = messages
    if system_turn == "user":
        first = {**first, "content": f"{system['content']}\n\n{first['content']}"}
    return [first, *later]


def _there(place: str, setting: str) -> Path:
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder: give the model's weights as load_model(uri, model_config={{'{setting}': FOLDER}})"
        )
    return folder


def _require(files: dict[str, str], folder: Path) -> None:
    """Hold every file to its SHA-256."""
    for name, digest in sorted(files.items()):
        path = folder / name
        found = None
        if path.is_file():
            with path.open("rb") as handle:
                found = hashlib.file_digest(handle, "sha256").hexdigest()
        if found != digest:
            raise ValueError(f"{path} is not the file that was registered: its SHA-256 is {found}, expected {digest}")


set_model(ChatModel())
