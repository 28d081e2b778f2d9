"""What is wrong with a recipe, in one line for each problem."""

import difflib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from preflow.config.evaluation.measures import EvaluationSettings
from preflow.config.evaluation.promotion import PromotionSettings
from preflow.config.launch import Launch
from preflow.config.recipe import Recipe
from preflow.config.rlhf import RewardModelSettings, RlooSettings
from preflow.config.training import DpoSettings, SftSettings
from preflow.config.validation import ReadingSettings, ValidationSettings
from preflow.redaction import as_written, cut, quoted

_SECTIONS: dict[str, type[BaseModel]] = {
    "sft": SftSettings,
    "dpo": DpoSettings,
    "reward_model": RewardModelSettings,
    "rloo": RlooSettings,
    "validation": ValidationSettings,
    "reading": ReadingSettings,
    "evaluation": EvaluationSettings,
    "promotion": PromotionSettings,
    "launch": Launch,
}


def explain(error: ValidationError) -> Iterator[str]:
    """One line for each problem of a recipe, in the words of the recipe; of an unknown setting, the nearest name."""
    for problem in error.errors():
        where = ".".join(quoted(str(part)) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            yield _unknown(problem["loc"])
        elif problem["type"] == "value_error":
            text = cut(str(problem["ctx"]["error"]))
            yield f"{where}: {text}" if where else text
        elif problem["loc"] == ("template",):
            got = quoted(problem["input"])
            yield f"template: expected chat or none, got '{got}'; a family of templates is chat_template: {got}"
        else:
            yield f"{where}: {cut(problem['msg'])}, got {as_written(problem['input'])}"


#: By setting, the names that it has in TRL, transformers, PEFT, axolotl, LLaMA-Factory, unsloth, or for short.
_ELSEWHERE = {
    "model_name": "model base_model model_id model_path model_name_or_path pretrained_model_name_or_path "
    "base_model_name_or_path",
    "model_revision": "revision revision_of_model",
    "strategy": "stage rl train_type training_type",
    "tuning": "finetuning_type adapter use_peft use_lora full_finetuning",
    "use_4bit": "load_in_4bit qlora quantization_bit load_in_8bit quantization",
    "bf16": "fp16 dtype torch_dtype model_dtype precision mixed_precision pure_bf16 tf32",
    "seed": "random_seed data_seed random_state",
    "name": "experiment_name experiment project_name wandb_project",
    "provider": "use_unsloth",
    "dataset": "datasets dataset_name dataset_path dataset_dir data data_path data_files train_data train_dataset "
    "train_file training_file training_data",
    "eval_dataset": "eval_data eval_file val_data val_dataset valid_dataset validation_file test_datasets",
    "eval_split": "val_size val_set_size test_size split_ratio",
    "num_train_epochs": "epochs num_epochs n_epochs max_epochs train_epochs",
    "per_device_train_batch_size": "batch_size micro_batch_size train_batch_size per_gpu_train_batch_size "
    "per_device_batch_size",
    "gradient_accumulation_steps": "grad_accum gradient_accumulation grad_accumulation_steps accumulate_grad_batches",
    "learning_rate": "lr peak_lr",
    "lr_scheduler_type": "lr_scheduler scheduler scheduler_type",
    "warmup_ratio": "warmup warmup_steps lr_warmup_ratio",
    "max_grad_norm": "gradient_clipping grad_clip clip_grad_norm",
    "optim": "optimizer optimizer_type",
    "max_seq_length": "max_length cutoff_len sequence_len max_seq_len seq_length sequence_length model_max_length "
    "block_size max_prompt_length max_completion_length max_target_length",
    "batching": "group_by_length train_sampling_strategy",
    "gradient_checkpointing": "use_gradient_checkpointing activation_checkpointing disable_gradient_checkpointing",
    "lora_r": "r rank lora_rank lora_dim",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target_modules": "target_modules lora_target lora_modules lora_target_linear lora_target_layers",
    "beta": "pref_beta dpo_beta rl_beta",
    "loss_type": "loss pref_loss preference_loss dpo_loss",
    "label_smoothing": "dpo_label_smoothing label_smoothing_factor",
    "eval_steps": "eval_strategy evaluation_strategy evals_per_epoch",
    "early_stop_patience": "early_stopping_patience",
    "generation_batch_size": "per_device_eval_batch_size eval_batch_size",
    "sample_prompts": "generate_during_eval eval_prompts",
    "num_processes": "num_gpus n_gpu n_gpus nproc_per_node world_size",
    "config": "deepspeed deepspeed_config fsdp fsdp_config accelerate_config",
}
_USUAL = {name: setting for setting, names in _ELSEWHERE.items() for name in names.split()}
#: What people may write in its place, where the setting's name alone does not tell.
_VALUES = {
    "load_in_8bit": "use_4bit: true (NF4), the one way to quantize a base",
    "quantization_bit": "use_4bit: true (NF4), the one way to quantize a base",
    "torch_dtype": "bf16: true, false or auto",
    "dtype": "bf16: true, false or auto",
    "fp16": "bf16: true, false or auto; float16's range is too small",
    "use_unsloth": "provider: unsloth",
    "group_by_length": "batching: length",
    "deepspeed": "launch.config: a configuration of accelerate, as infra/accelerate/deepspeed-zero3.yaml",
    "warmup_steps": "warmup_ratio: a share of all steps",
    "lora_target_linear": "lora_target_modules: all-linear",
    "max_prompt_length": "max_seq_length, which bounds prompt and response together",
}
#: Settings of other tools that nothing here corresponds to by name: what to do instead.
_INSTEAD = {
    "a run's models are in its home (PREFLOW_HOME), and preflow export writes one to a folder: remove it": (
        "output_dir save_dir output_path overwrite_output_dir logging_dir cache_dir export_dir merge_adapter "
        "merge_lora save_merged"
    ),
    "a run that is started again resumes from its last whole checkpoint (save_steps) by itself: remove it": (
        "resume_from_checkpoint auto_resume_from_checkpoints resume save_strategy save_total_limit save_only_model"
    ),
    "with LoRA only adapters on lora_target_modules train; tuning: full trains all weights, embeddings and head too": (
        "modules_to_save additional_target lora_modules_to_save unfreeze unfrozen_parameters trainable_token_indices"
    ),
    "rows are packed without padding by themselves where the architecture allows it; batching and "
    "max_tokens_per_batch say which rows share a micro-batch: remove it": (
        "packing sample_packing eval_packing eval_sample_packing neat_packing padding_free pad_to_sequence_len"
    ),
    "give loss_type: [sigmoid, sft] and loss_weights: [1, VALUE], which is RPO's loss": "rpo_alpha pref_ftx",
    "it is the tokenizer's own (its EOS token where it has none), and losses go by position: remove it, or set it in "
    "the model's tokenizer_config.json": (
        "pad_token pad_token_id special_tokens eos_token bos_token unk_token tokenizer tokenizer_name tokenizer_type "
        "add_tokens tokens new_special_tokens padding_side resize_vocab resize_token_embeddings"
    ),
    "use_4bit is always NF4 with double quantization, computing in the precision of bf16: remove it": (
        "bnb_4bit_quant_type bnb_4bit_compute_dtype bnb_4bit_use_double_quant quantization_type quantization_method "
        "quantization_config double_quantization"
    ),
    "only the tokens of responses have a loss: remove it": (
        "train_on_inputs train_on_prompt completion_only_loss assistant_only_loss mask_prompt mask_history "
        "train_on_responses_only train_on_eos roles_to_train"
    ),
    "the reference is the SFT stage's model (with strategy: dpo the model of model_name), and its log-probs are "
    "computed once: remove it": (
        "ref_model ref_model_name ref_model_name_or_path reference_model precompute_ref_log_probs reference_free "
        "sync_ref_model force_use_ref_model"
    ),
    "runs are recorded in MLflow (MLFLOW_TRACKING_URI), under the recipe's name: remove it": (
        "report_to run_name wandb_entity wandb_run_id use_wandb tracking_uri mlflow_tracking_uri plot_loss"
    ),
    "nothing is uploaded by a run; upload the folder of preflow export: remove it": (
        "push_to_hub hub_model_id hub_strategy hub_token hub_private_repo"
    ),
    "adapters are plain LoRA: remove it": (
        "use_dora use_rslora peft_use_dora peft_use_rslora loraplus_lr_ratio pissa_init lora_bias "
        "rank_pattern alpha_pattern layers_to_transform lora_layers_to_transform"
    ),
    "transformers chooses it for the model, or Preflow's packed attention does: remove it": (
        "flash_attn flash_attention attn_implementation use_flash_attention_2 xformers_attention sdp_attention "
        "use_liger_kernel liger_kernel enable_liger_kernel torch_compile"
    ),
    "give it with the data set, as dataset: {path: ..., format: ..., columns: {prompt: ...}}": (
        "dataset_format dataset_type data_format format columns dataset_text_field text_field text_column "
        "prompt_column prompt_field chosen_column chosen_field rejected_column rejected_field response_column "
        "field_messages messages_field column_mapping"
    ),
    "there is no such setting, and none is needed: remove it": (
        "do_train do_eval do_predict overwrite_cache preprocessing_num_workers dataloader_num_workers "
        "dataset_num_proc remove_unused_columns ddp_timeout ddp_find_unused_parameters disable_tqdm "
        "load_best_model_at_end metric_for_best_model greater_is_better max_samples dataset_processes "
        "dataset_prepared_path adam_beta1 adam_beta2 adam_epsilon device device_map low_cpu_mem_usage use_cache "
        "shuffle streaming"
    ),
}  # fmt: skip
#: Letters of an unknown name that are compared with those that are known.
_LONGEST = 80
_FOREIGN = {name: text for text, names in _INSTEAD.items() for name in names.split()}


def _unknown(location: tuple[int | str, ...]) -> str:
    *parents, last = (str(part) for part in location)
    section: type[BaseModel] = Recipe
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        options = getattr(annotation, "__args__", (annotation,))
        section = next(option for option in options if isinstance(option, type) and issubclass(option, BaseModel))
    where, named = ".".join([*parents, quoted(last)]), quoted(last)
    if section is not Recipe and last in Recipe.model_fields:
        return f"{where}: '{named}' is a setting of the whole recipe, give it at the top level"
    homes = [home for home, settings in _SECTIONS.items() if settings is not section and last in settings.model_fields]
    if homes:
        return f"{where}: '{named}' belongs in {' or '.join(homes)}: give {homes[0]}.{named}"
    plain = last.lower().replace("-", "_").strip("_")
    names = _names(section)
    if plain in names:
        return f"{where}: unknown setting; did you mean '{plain}'?"
    if plain in _FOREIGN:
        return f"{where}: unknown setting; {_FOREIGN[plain]}"
    if plain in _USUAL:
        return f"{where}: unknown setting; {_neighbour(plain, section)}"
    near = difflib.get_close_matches(plain[:_LONGEST], sorted(names), n=1, cutoff=0.65)
    hint = f"did you mean '{near[0]}'?" if near else f"valid names here: {', '.join(sorted(names))}"
    return f"{where}: unknown setting; {hint}"


def _names(section: type[BaseModel]) -> set[str]:
    """The settings that may be given in a section; at the top level, those that stages share too."""
    shared = {*SftSettings.model_fields, *DpoSettings.model_fields} if section is Recipe else set()
    return {*section.model_fields, *shared}


def _neighbour(foreign: str, section: type[BaseModel]) -> str:
    """Which setting another tool's name means, with its section where it is not the one given."""
    setting = _USUAL[foreign]
    if foreign in _VALUES:
        return f"give {_VALUES[foreign]}"
    if setting in _names(section):
        return f"did you mean '{setting}'?"
    if setting in Recipe.model_fields:
        return f"did you mean '{setting}', at the top level?"
    home = next(home for home, settings in _SECTIONS.items() if setting in settings.model_fields)
    return f"did you mean {home}.{setting}?"
