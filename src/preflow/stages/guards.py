"""What watches a training: broken numbers stop it before they reach the weights, drift before it ruins them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from preflow.errors import NonFiniteLossError, RuinedModelError
from preflow.models.layout import IGNORED
from preflow.models.loading import LanguageModel
from preflow.models.sharding import local_part, put_back, trained_weights
from preflow.observer import Observer
from preflow.stages import ranks
from preflow.stages.drift import Drift, HeldOut
from preflow.training_settings import DpoSettings

ROW = "row"
_NAMED = 8
_EXPECTED = "expected.safetensors"
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


class Watched:
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
    guarded = False

    def watch(self, stage: str, sources: Sequence[str]) -> None:
        """Name the stage and, per row of the data set, the file and row it came from."""
        self.stage, self.sources = stage, sources
        self._rows: list[int] = []
        trainer: Any = self
        trainer.data_collator = NumberedRows(trainer.data_collator)
        trainer.add_callback(_AroundStep(self))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, looked at."""
        rows = inputs.pop(ROW, None)
        result = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        if rows is not None and model.training:
            numbers = rows.tolist()
            self._rows += numbers
            self._last = model, numbers
            if ranks.anywhere(not bool(torch.isfinite(loss)), loss.device):
                raise self._broken("loss", float(loss.detach()), self._guilty(model, numbers, loss))
        return result

    def check_gradients(self) -> None:
        """Stop before an optimizer step on gradients that are no numbers."""
        trainer: Any = self
        gradients = [local_part(p.grad) for p in trainer.model.parameters() if p.grad is not None]
        norm = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).sum() if gradients else None
        if ranks.anywhere(norm is not None and not bool(torch.isfinite(norm)), trainer.args.device):
            value = math.nan if norm is None else float(norm)
            raise self._broken("gradient", value, [row for rows in ranks.of_all(self._rows) for row in rows])
        self._rows = []

    def check_weights(self) -> None:
        """Stop after an optimizer step that left weights that are no numbers, before a checkpoint holds them."""
        trainer: Any = self
        weights = [local_part(p.detach()) for p in trainer.model.parameters() if p.requires_grad]
        norm = torch.stack([norm.float() for norm in torch._foreach_norm(weights, math.inf)]).sum()
        if ranks.anywhere(not bool(torch.isfinite(norm)), trainer.args.device):
            raise NonFiniteLossError(f"{self.stage}: weights are NaN or infinite {self._after()}")

    def check_end(self) -> None:
        """Stop after a last step that ruined the model: it gives the rows of that step less than guessing would.

        Guessing among V tokens takes ln V nats per token. A model that began better and ends worse has unlearnt the
        language, which a step of a far too high learning rate does. Near ``ln V`` it began with nothing to unlearn.
        """
        trainer: Any = self
        model, rows = self._last
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[row] for row in rows]))
        nats, before = self._nats(model, batch)
        if ranks.anywhere(not math.isfinite(nats), trainer.args.device):
            raise NonFiniteLossError(f"{self.stage}: the model gives its rows {nats} nats per token {self._after()}")
        guessing = math.log(model_vocabulary(trainer.model))
        if ranks.anywhere(before <= _KNOWING * guessing and nats > guessing, trainer.args.device):
            raise RuinedModelError(
                f"{self.stage}: the model gives its own training rows {nats:.1f} nats per token (before training "
                f"{before:.1f}; guessing among all tokens takes {guessing:.1f}) {self._after()}"
            )

    def _nats(self, model: Any, batch: Any) -> tuple[float, float]:
        """Nats per token that demonstrations, or chosen responses, take now, and took when training began."""
        trainer: Any = self
        pairs = "completion_mask" in batch
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORED) if pairs else batch["labels"]
        given = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
        model.eval()
        with torch.no_grad(), trainer.compute_loss_context_manager():
            values = model(**given, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        model.train()
        kept = len(labels) // 2 if pairs else len(labels)  # chosen responses stand first
        count = max(1, int((labels[:kept, 1:] != IGNORED).sum()))
        first = next((e["loss"] for e in trainer.state.log_history if "loss" in e), math.inf)
        before = -float(batch["ref_chosen_logps"].sum()) / count if pairs else first
        return -float(values[:kept].double().sum()) / count, before

    def _after(self) -> str:
        trainer: Any = self
        return (
            f"after step {trainer.state.global_step}, whose loss and gradient were numbers: the step was too large. "
            f"{self._kept()}. Lower the learning rate ({trainer.args.learning_rate:g})"
        )

    def _kept(self) -> str:
        trainer: Any = self
        kept = sorted(Path(str(trainer.args.output_dir)).glob("checkpoint-*"))
        return f"The last checkpoint is kept in {trainer.args.output_dir}" if kept else "No checkpoint was written yet"

    def _guilty(self, model: Any, rows: Sequence[int], loss: torch.Tensor) -> list[int]:
        """Which rows of all processes give a broken loss alone; where none does, all rows of a broken loss."""
        broken = [] if bool(torch.isfinite(loss)) else list(rows)
        most = max(ranks.of_all(len(rows)))  # as many forwards in every process: they may need each other in each
        alone = [row for place in range(most) if self._breaks(model, row := rows[place % len(rows)])]
        guilty = [row for found in ranks.of_all(alone) for row in found]
        return sorted(set(guilty)) or [row for found in ranks.of_all(broken) for row in found]

    def _breaks(self, model: Any, row: int) -> bool:
        trainer: Any = self
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[row]]))
        batch.pop(ROW)
        with torch.no_grad():
            loss = super().compute_loss(model, batch)  # type: ignore[misc]
        return not bool(torch.isfinite(loss))

    def _broken(self, what: str, value: float, rows: Sequence[int]) -> NonFiniteLossError:
        trainer: Any = self
        value = next((seen for seen in ranks.of_all(value) if not math.isfinite(seen)), value)
        names = [self.sources[row] for row in rows[:_NAMED]]
        more = f" and {len(rows) - _NAMED} more" if len(rows) > _NAMED else ""
        kept = self._kept()
        last = kept[0].lower() + kept[1:]
        return NonFiniteLossError(
            f"{self.stage}: the {what} is {value} at step {trainer.state.global_step + 1}, expected a number, on "
            f"{', '.join(names)}{more}. The weights were not touched by it; {last}. "
            f"Look at those rows, or lower the learning rate or max_grad_norm"
        )


class _AroundStep(TrainerCallback):
    def __init__(self, watched: Watched) -> None:
        self.watched = watched

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.watched.check_gradients()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.watched.check_weights()
        if state.global_step == state.max_steps and not self.watched.guarded:
            self.watched.check_end()


def model_vocabulary(model: LanguageModel) -> int:
    """Tokens that a model chooses from."""
    return int(model.config.get_text_config().vocab_size)


class DriftGuard(TrainerCallback):
    """Measures drift every few steps, keeps the best weights, and stops a training that has gone too far.

    The best weights are those of the highest reward accuracy (then margin) among measurements within the KL limit;
    the start of training, which is the reference itself, counts as one. Measurements stand in the trainer's log, which
    checkpoints carry, so a resumed training decides as an uninterrupted one.
    """

    def __init__(self, model: LanguageModel, scratch: Path, settings: DpoSettings, observer: Observer) -> None:
        """Watch ``model``, with the best weights kept under ``scratch``."""
        self.model, self.scratch, self.settings, self.observer = model, scratch, settings, observer
        self.held_out: HeldOut | None = None
        self.reason: str | None = None
        self.steps = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the start, which is the reference: what it expects, and its weights, which later ones have to beat."""
        if self.held_out is None:
            return
        if state.global_step > 0:
            self.held_out.recall(self.scratch / _EXPECTED)
            return
        self.held_out.remember()
        if state.is_world_process_zero:
            self.scratch.mkdir(parents=True, exist_ok=True)
            self.held_out.save(self.scratch / _EXPECTED)
        state.log_history.append({"step": 0, **_entries(Drift(0.0, 0.0, 0.0, 0.0, 0.0))})
        self._keep(0, state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, keep the best, stop."""
        due = self.settings.eval_steps and state.global_step % self.settings.eval_steps == 0
        if self.held_out is None or not (due or state.global_step == state.max_steps):
            return
        drift: Drift = ranks.of_first(self.held_out.look())
        before = self._best(state)
        state.log_history.append({"step": state.global_step, **_entries(drift)})
        self.observer.metrics({f"dpo/{k}": v for k, v in _entries(drift).items()}, state.global_step)
        self.steps, self.reason = state.global_step, self._why_stop(state, drift.kl)
        if self.reason is not None:
            control.should_training_stop = True
        elif self._best(state) != before:
            self._keep(state.global_step, state)

    def stopped_before(self, checkpoint: str | None) -> TrainerState | None:
        """Where a training ended that was stopped and then killed before it could go back to its best weights.

        Args:
            checkpoint: The newest whole one, if there is any.

        Returns:
            The state in which it was stopped; none where training has to go on.
        """
        if checkpoint is None:
            return None
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        last = next((e for e in reversed(state.log_history) if "eval_kl" in e), None)
        if last is None or last["step"] != state.global_step:
            return None
        self.steps, self.reason = state.global_step, self._why_stop(state, last["eval_kl"])
        return None if self.reason is None else state

    def finish(self, state: TrainerState) -> dict[str, float]:
        """After training: where it was stopped, go back to the best weights and say so.

        Returns:
            What to report: the last measurement, and where training stopped and which step's weights are kept.
        """
        last: dict[str, float] = next((e for e in reversed(state.log_history) if "eval_kl" in e), {})
        report = {f"dpo/{name}": value for name, value in last.items() if name != "step"}
        if self.reason is None:
            return report
        step = self._best(state)
        put_back(self.model, self._file(step))
        self.observer.note(
            f"dpo: stopped at step {self.steps}: {self.reason}. The weights of step {step} are kept"
            + (", which are the reference's: nothing was learnt within the limit" if step == 0 else "")
        )
        return {**report, "dpo/stopped_at_step": float(self.steps), "dpo/kept_step": float(step)}

    def _why_stop(self, state: TrainerState, kl: float) -> str | None:
        limit, patience = self.settings.kl_limit, self.settings.early_stop_patience
        if not kl <= limit:  # a NaN is too far
            return (
                f"the KL from the reference on held-out responses is at least {kl:.2f} nats per response, above "
                f"dpo.kl_limit {limit:g}; lower the learning rate, raise beta, or raise the limit"
            )
        since = [e["step"] for e in state.log_history if "eval_kl" in e and e["step"] > self._best(state)]
        if patience and len(since) >= patience:
            return f"neither accuracy nor margin rose in {len(since)} measurements (dpo.early_stop_patience)"
        return None

    def _best(self, state: TrainerState) -> int:
        measured = [e for e in state.log_history if e.get("eval_kl", math.inf) <= self.settings.kl_limit]
        best = max(measured, key=lambda e: (e["eval_reward_accuracy"], e["eval_reward_margin"]), default={"step": 0})
        return int(best["step"])

    def _file(self, step: int) -> Path:
        return self.scratch / f"best-{step}.safetensors"

    def _keep(self, step: int, state: TrainerState) -> None:
        weights = trained_weights(self.model)  # in every process: each may hold a part
        if not state.is_world_process_zero:
            return
        self.scratch.mkdir(parents=True, exist_ok=True)
        kept = sorted(self.scratch.glob("best-*.safetensors"), key=lambda p: int(p.stem.partition("-")[2]))
        partial = self.scratch / "best.partial"
        save_file(weights, partial)
        partial.rename(self._file(step))
        for old in kept[1:-1]:  # the start and the last best stay: a kill may send training back before this one
            old.unlink()


def _entries(drift: Drift) -> dict[str, float]:
    return {f"eval_{name}": value for name, value in asdict(drift).items()}
