"""What watches every training: broken numbers stop it before they reach the weights, ruin before it is kept."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from preflow import distributed
from preflow.errors import NonFiniteLossError, RuinedModelError
from preflow.models.loading import LanguageModel
from preflow.models.packed.layout import IGNORED
from preflow.models.sharding import local_part
from preflow.training.trl_trainer import TrlTrainer, as_trainer

ROW = "row"
_NAMED = 8
#: A model knows something that gives rows at most this share of the nats of guessing.
_KNOWING = 0.9


class NumberedRows:
    """A collator that lets a batch say which rows it holds."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        """Wrap a trainer's own collator."""
        self.collate = collate

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate rows; their numbers, where they have some, come along under ``row``."""
        batch = self.collate([{name: value for name, value in row.items() if name != ROW} for row in examples])
        if all(ROW in row for row in examples):
            batch[ROW] = torch.tensor([row[ROW] for row in examples])
        return batch


class NumericalChecks:
    """Mixin before one of TRL's trainers: a loss or gradient that is no number stops training and names its rows.

    The optimizer has not stepped then, so neither the weights nor any checkpoint hold a broken number. Of several
    processes all stop, and name the rows of all: each looks at its own, and none goes on to a forward that needs the
    others. (Under DeepSpeed only the loss is looked at in time: its backward steps the optimizer.)

    What a step leaves behind is looked at before it is written: weights after every step, and what the model says after
    the last one, which no later loss would tell.
    """

    stage = "training"
    sources: Sequence[str] = ()
    #: Whether a guard of its own judges the last step.
    judged_elsewhere = False

    def watch(self, stage: str, sources: Sequence[str]) -> None:
        """Name the stage and, per row of the data set, the file and row it came from."""
        self.stage, self.sources = stage, sources
        self._rows: list[int] = []
        self._first: tuple[list[int], float] | None = None
        trainer = as_trainer(self)
        trainer.data_collator = NumberedRows(trainer.data_collator)
        trainer.add_callback(_StepHooks(self))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, looked at."""
        rows = inputs.pop(ROW, None)
        if rows is not None and model.training and self._first is None:
            self._first = rows.tolist(), self._nats_at_start(model, inputs)
        result = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        if rows is not None and model.training:
            numbers = rows.tolist()
            self._rows += numbers
            self._last = model, numbers
            if distributed.any_rank(not bool(torch.isfinite(loss)), loss.device):
                broken = [] if bool(torch.isfinite(loss)) else numbers
                raise self._broken("loss", float(loss.detach()), self._guilty(numbers, broken, self._breaks_loss))
        return result

    def check_gradients(self) -> None:
        """Stop before an optimizer step on gradients that are no numbers."""
        trainer = as_trainer(self)
        gradients = [local_part(p.grad) for p in trainer.model.parameters() if p.grad is not None]
        norm = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).sum() if gradients else None
        if distributed.any_rank(norm is not None and not bool(torch.isfinite(norm)), trainer.args.device):
            value = math.nan if norm is None else float(norm)
            raise self._broken("gradient", value, self._guilty(self._rows, self._rows, self._breaks_gradient))
        self._rows = []

    def check_weights(self) -> None:
        """Stop after an optimizer step that left weights that are no numbers, before a checkpoint holds them."""
        trainer = as_trainer(self)
        weights = [local_part(p.detach()) for p in trainer.model.parameters() if p.requires_grad]
        norm = torch.stack([norm.float() for norm in torch._foreach_norm(weights, math.inf)]).sum()
        if distributed.any_rank(not bool(torch.isfinite(norm)), trainer.args.device):
            raise NonFiniteLossError(f"{self.stage}: weights are NaN or infinite {_after_step(trainer)}")

    def check_end(self) -> None:
        """Stop after a last step that ruined the model: it gives rows less than guessing would, and gave them more.

        Guessing among V tokens takes ln V nats per token. A model that began better and ends worse has unlearnt the
        language, which a step of a far too high learning rate does. Near ``ln V`` it began with nothing to unlearn.
        Both numbers are of the same rows: where V is small, other rows alone may lie on the other side of ``ln V``.
        """
        trainer = as_trainer(self)
        model, rows = self._last
        if self._first is not None and not math.isnan(self._first[1]):
            rows = self._first[0]
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[row] for row in rows]))
        nats, before = self._nats(model, batch)
        if distributed.any_rank(not math.isfinite(nats), trainer.args.device):
            raise NonFiniteLossError(
                f"{self.stage}: the model gives its rows {nats} nats per token {_after_step(trainer)}"
            )
        guessing = math.log(model_vocabulary(trainer.model))
        if distributed.any_rank(before <= _KNOWING * guessing and nats > guessing, trainer.args.device):
            raise RuinedModelError(
                f"{self.stage}: the model gives its own training rows {nats:.1f} nats per token (before training "
                f"{before:.1f}; guessing among all tokens takes {guessing:.1f}) {_after_step(trainer)}"
            )

    def _nats_at_start(self, model: Any, batch: Any) -> float:
        """Nats per token of the first demonstrations before the first step; NaN for pairs, whose values are stored.

        A run that goes on from a checkpoint takes them there.
        """
        return math.nan if "completion_mask" in batch else self._nats_now(model, batch)

    def _nats(self, model: Any, batch: Any) -> tuple[float, float]:
        """Nats per token that demonstrations, or chosen responses, take now, and took when training began."""
        nats = self._nats_now(model, batch)
        if "completion_mask" not in batch:
            return nats, math.inf if self._first is None else self._first[1]
        _, count = _scored_labels(batch)
        return nats, -float(batch["ref_chosen_logps"].sum()) / count

    def _nats_now(self, model: Any, batch: Any) -> float:
        trainer = as_trainer(self)
        labels, count = _scored_labels(batch)
        given = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
        model.eval()
        with torch.no_grad(), trainer.compute_loss_context_manager():
            values = model(**given, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        model.train()
        kept = len(labels) // 2 if "completion_mask" in batch else len(labels)  # chosen responses stand first
        return -float(values[:kept].double().sum()) / count

    def _guilty(self, rows: Sequence[int], broken: Sequence[int], breaks: Callable[[int], bool]) -> list[int]:
        """Which rows of all processes break alone; where none does, all that ``broken`` says."""
        most = max(
            distributed.all_gather_objects(len(rows))
        )  # as many forwards in every process: they may need each other in each
        alone = [row for place in range(most) if breaks(row := rows[place % len(rows)])]
        guilty = [row for found in distributed.all_gather_objects(alone) for row in found]
        return sorted(set(guilty)) or [row for found in distributed.all_gather_objects(list(broken)) for row in found]

    def _breaks_loss(self, row: int) -> bool:
        with torch.no_grad():
            return not bool(torch.isfinite(self._loss_alone(row)))

    def _breaks_gradient(self, row: int) -> bool:
        trainer = as_trainer(self)
        trainer.model.zero_grad()
        with trainer.accelerator.no_sync(self._last[0]):
            self._loss_alone(row).backward()  # type: ignore[no-untyped-call]
        gradients = [local_part(p.grad) for p in trainer.model.parameters() if p.grad is not None]
        return not all(bool(torch.isfinite(norm)) for norm in torch._foreach_norm(gradients))

    def _loss_alone(self, row: int) -> torch.Tensor:
        trainer = as_trainer(self)
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[row]]))
        batch.pop(ROW)
        loss: torch.Tensor = super().compute_loss(self._last[0], batch)  # type: ignore[misc]
        return loss

    def _broken(self, what: str, value: float, rows: Sequence[int]) -> NonFiniteLossError:
        trainer = as_trainer(self)
        value = next((seen for seen in distributed.all_gather_objects(value) if not math.isfinite(seen)), value)
        names = [self.sources[row] for row in rows[:_NAMED]]
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        return NonFiniteLossError(
            f"{self.stage}: the {what} is {value} at step {trainer.state.global_step + 1}, expected a number, on "
            f"{', '.join(names)}{more}; the weights are unchanged, and {_kept_checkpoint(trainer)}. "
            f"Look at those rows, or lower the learning rate or max_grad_norm"
        )


def _scored_labels(batch: Any) -> tuple[torch.Tensor, int]:
    """Labels of a batch, shape ``(B, T)``, and how many tokens of demonstrations or chosen responses count in it."""
    pairs = "completion_mask" in batch
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED) if pairs else batch["labels"]
    kept = len(labels) // 2 if pairs else len(labels)
    return labels, max(1, int((labels[:kept, 1:] != IGNORED).sum()))


# Functions, not methods: of the identity of a stage, an error's text and what makes it are no part.
def _after_step(trainer: TrlTrainer) -> str:
    return (
        f"after step {trainer.state.global_step}, whose loss and gradient were finite: the step was too large; "
        f"{_kept_checkpoint(trainer)}. Lower the learning rate ({trainer.args.learning_rate:g})"
    )


def _kept_checkpoint(trainer: TrlTrainer) -> str:
    kept = sorted(Path(str(trainer.args.output_dir)).glob("checkpoint-*"))
    return f"the last checkpoint is kept in {trainer.args.output_dir}" if kept else "no checkpoint was written yet"


class _StepHooks(TrainerCallback):
    def __init__(self, watched: NumericalChecks) -> None:
        self.watched = watched

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.watched.check_gradients()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.watched.check_weights()
        if state.global_step == state.max_steps and not self.watched.judged_elsewhere:
            self.watched.check_end()


def model_vocabulary(model: LanguageModel) -> int:
    """Tokens that a model chooses from."""
    return int(model.config.get_text_config().vocab_size)
