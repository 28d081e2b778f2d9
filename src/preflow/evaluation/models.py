"""The models of a run, used in turn, with as few copies of the base weights as possible."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from preflow.data.tokens.chat_template import Renderer
from preflow.logprobs.identity import ReferenceIdentity, identify
from preflow.models.cpu.lora_linear import fuse_lora
from preflow.models.loading import LanguageModel, attach_adapter, is_adapter, load_tokenizer, load_weights
from preflow.models.precision import choose_precision
from preflow.specs import EvaluateSpec


class ModelSet:
    """Base, SFT and DPO model by name; adapters share one base, full weights are loaded once each."""

    def __init__(self, spec: EvaluateSpec) -> None:
        """Name the models that ``spec`` has; no weights are loaded yet."""
        self._recipe = spec.recipe
        self._base = spec.base
        self.precision = choose_precision(spec.recipe)
        self.tokenizer = load_tokenizer(spec.base, spec.recipe)
        self.renderer = Renderer(self.tokenizer, spec.recipe.rendering)
        self._trained: dict[str, Path] = {}
        self._folders: dict[str, Path | None] = {"base": Path(spec.base.adapter) if spec.base.adapter else None}
        for name, artifact in (("sft", spec.sft), ("dpo", spec.dpo)):
            if artifact is not None:
                self._folders[name] = self._trained[name] = artifact.file("model")
        #: Rows of every answer that a model has given, by its name.
        self.answered: dict[str, list[dict[str, Any]]] = {}
        self._full: dict[str, LanguageModel] = {}
        self._shared: LanguageModel | None = None

    @property
    def names(self) -> list[str]:
        """The models in order of training; the last is the run's result."""
        return list(self._folders)

    def identity(self, name: str) -> ReferenceIdentity:
        """One model as the stores name it: by its weights, its precision and the code that runs it."""
        return identify(self._base, self._trained.get(name), self._recipe, self.precision)

    def keep(self, names: Sequence[str]) -> None:
        """Leave out all models but these."""
        self._folders = {name: folder for name, folder in self._folders.items() if name in names}

    def use(self, name: str) -> LanguageModel:
        """One model, in evaluation mode. Valid until the next call: models share the device or the base weights."""
        model = self._find(name)
        if not self._recipe.use_4bit and self.precision.device.type != "cpu":
            for other in (*self._full.values(), self._shared):
                if other is not None and other is not model:
                    other.to("cpu")
            model.to(self.precision.device)
        return model

    def _find(self, name: str) -> LanguageModel:
        folder = self._folders[name]
        if folder is not None and not is_adapter(folder):
            if name not in self._full:
                self._full[name] = load_weights(folder, self._recipe, self.precision)
            return self._full[name]
        model = self._base_model()
        if folder is None:
            return self._without_adapter(model)
        return self._with_adapter(model, name, folder)

    def _base_model(self) -> LanguageModel:
        if self._shared is None:
            self._shared = load_weights(self._base.path, self._recipe, self.precision).requires_grad_(False)
        return self._shared

    @staticmethod
    def _without_adapter(model: LanguageModel) -> LanguageModel:
        if isinstance(model, PeftModel):
            tuner: LanguageModel = model.base_model
            tuner.disable_adapter_layers()
        return model

    def _with_adapter(self, model: LanguageModel, name: str, folder: Path) -> LanguageModel:
        if not isinstance(model, PeftModel):
            model = attach_adapter(model, folder, trainable=False, name=name)
            self._shared = model
        if name not in model.peft_config:
            model.load_adapter(str(folder), adapter_name=name)
        fuse_lora(model)
        model.base_model.enable_adapter_layers()
        model.set_adapter(name)
        return model.eval()
