"""Every error that Preflow raises on purpose.

Each class also inherits from a class of the standard library, so ``except ValueError`` keeps working::

    PreflowError
    ├── ConfigError (ValueError)                a recipe that cannot be run
    │   └── MissingDependencyError (ImportError)  an optional package is not installed
    ├── DataError (ValueError)                  rows or files that cannot be used
    │   ├── DataFileError                       a file that cannot be read: file, line, reason
    │   │   └── DataDownloadError               another attempt may succeed
    │   ├── DataUnfitError                      the set as a whole is unfit, as the report says
    │   ├── IncomparableError                   two models were measured on different held-out rows
    │   └── TemplateError                       the chat template does what training cannot follow
    ├── ArtifactError (RuntimeError)            a stage folder that differs from its manifest
    ├── CodeChangedError (RuntimeError)         Preflow's sources were edited during a run
    ├── ModelError (RuntimeError)               weights that cannot be loaded or used
    │   ├── UnfitModelError                     a model that cannot be trained
    │   ├── UnfitRewardModelError               a reward model that is no better than chance
    │   ├── UnknownShapeError                   memory and FLOPs cannot be estimated
    │   ├── ModelNotFoundError (FileNotFoundError)  no folder, packaged model or hub model
    │   │   └── ModelDownloadError              another attempt may succeed
    │   ├── UnsafeWeightsError                  weights in a format that can run code
    │   └── DpoCheckpointError                  a DPO checkpoint where an SFT model belongs
    ├── ProofError (RuntimeError)               the checks before the first DPO step failed
    │   ├── PolicyMismatchError                 the policy at step 0 is not the reference
    │   ├── WrongReferenceError                 the reference of RLOO is not what training starts from
    │   ├── StoredValueError                    a stored log-prob is not what the SFT model gives
    │   ├── ForgottenSftError                   the reference is the base model, not the SFT model
    │   ├── AdapterDtypeError                   the adapter trains in another dtype than the reference
    │   └── NothingTrainableError               no parameter would change
    ├── JudgeError (RuntimeError)               a judge that cannot be used
    │   ├── UnfitJudgeError                     it does not agree with people, so it makes no pairs
    │   ├── JudgeChangedError                   its address gives other verdicts than before
    │   └── JudgeUnreachableError               its address does not answer, or refuses
    ├── ReviewError (RuntimeError)              a human review that cannot be opened or collected
    ├── MachineError (OSError)                  disk, folder or file handles are refused
    ├── TrackingError (RuntimeError)            MLflow does not answer
    ├── PromotionError (RuntimeError)           a registered model about which nothing can be decided as it is
    │   └── ChampionChangedError                another decision came first
    ├── NotificationError (RuntimeError)        a notification cannot be sent
    ├── UiError (RuntimeError)                  a server or UI of MLflow or Prefect cannot be started
    └── TrainingError (RuntimeError)            training broke
        ├── KilledRankError                     another attempt may succeed
        ├── NonFiniteLossError                  the loss, a gradient or a weight is NaN or infinite
        └── RuinedModelError                    the model fits its rows worse than guessing does

A message has at most two sentences: what was got and expected, and one remedy. The troubleshooting page has the rest;
every printed error names the command that prints its entry.
"""

from preflow.redaction import cut, escaped, without_secrets

#: Characters of a message, whatever it quotes.
_LONGEST = 20_000


class PreflowError(Exception):
    """Root of every error that Preflow raises on purpose."""

    def __str__(self) -> str:
        """The message, with the command that explains this class."""
        return f"{self.message} (preflow explain {type(self).__name__})"

    @property
    def message(self) -> str:
        """The message alone, for an error that quotes it."""
        return without_secrets(escaped(cut(super().__str__(), _LONGEST)))


class ConfigError(PreflowError, ValueError):
    """A recipe that cannot be run: an unknown, missing or contradictory setting."""


class MissingDependencyError(ConfigError, ImportError):
    """The recipe asks for an optional package that is not installed."""


class DataError(PreflowError, ValueError):
    """Rows or files that cannot be used."""


class DataFileError(DataError):
    """A data file that is absent, unreadable or malformed; names the file and the line."""


class DataDownloadError(DataFileError):
    """A hub data set could not be downloaded; trying again may help."""


class DataUnfitError(DataError):
    """The data set as a whole is unfit for training: a finding of severity ``stop``, or no row left."""


class IncomparableError(DataError):
    """Two models whose held-out rows are not, or hardly, the same: no difference between them can be measured."""


class TemplateError(DataError):
    """A chat template whose rendering cannot be split into prompt and response."""


class ArtifactError(PreflowError, RuntimeError):
    """A stage folder whose contents differ from its manifest."""


class CodeChangedError(PreflowError, RuntimeError):
    """Preflow's own source files were changed while it runs."""


class ModelError(PreflowError, RuntimeError):
    """Model weights that cannot be loaded or used."""


class UnfitModelError(ModelError):
    """No causal language model, one in a quantized format, or one whose tokenizer is absent or does not fit it."""


class UnfitRewardModelError(ModelError):
    """A reward model that agrees with held-out pairs no more often than chance."""


class UnknownShapeError(ModelError):
    """A model whose memory and FLOPs cannot be estimated; it can train all the same."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """``model_name`` is no folder, no packaged model and no hub model that can be reached."""


class ModelDownloadError(ModelNotFoundError):
    """A packaged model or a hub model could not be downloaded; trying again may help."""


class UnsafeWeightsError(ModelError):
    """Weights stored in a format that can execute code when loaded (anything but safetensors)."""


class DpoCheckpointError(ModelError):
    """A checkpoint of a DPO run was given where the SFT model belongs."""


class ProofError(PreflowError, RuntimeError):
    """A check before the first DPO step failed, so DPO must not start."""


class PolicyMismatchError(ProofError):
    """The policy at step 0 does not give the stored reference log-probs."""


class StoredValueError(ProofError):
    """A stored reference log-prob is not what an independent forward of the SFT model gives."""


class ForgottenSftError(ProofError):
    """The reference equals the base model: the SFT weights were lost or never trained."""


class WrongReferenceError(ProofError):
    """The reference that RLOO holds is not the model that training starts from."""


class AdapterDtypeError(ProofError):
    """The trainable weights are not in the dtype in which the reference was computed."""


class NothingTrainableError(ProofError):
    """No parameter of the policy would be changed by training."""


class JudgeError(PreflowError, RuntimeError):
    """A judge that cannot be used."""


class UnfitJudgeError(JudgeError):
    """A judge that does not agree with people on held-out pairs, or changes its verdict with the order of answers."""


class JudgeChangedError(JudgeError):
    """A judge's address gives other verdicts than before, so stored ones are not its own any more."""


class JudgeUnreachableError(JudgeError):
    """A judge's address does not answer, or refuses."""


class ReviewError(PreflowError, RuntimeError):
    """A human review that cannot be opened or collected: no answers, no key, a sheet that cannot be read."""


class MachineError(PreflowError, OSError):
    """The machine refuses a run something: disk space, a folder that can be written, file handles."""


class TrackingError(PreflowError, RuntimeError):
    """MLflow does not answer, or does not take what a run records."""


class PromotionError(PreflowError, RuntimeError):
    """A registered model, a version or a decision that is missing, was changed, or does not fit what is asked."""


class ChampionChangedError(PromotionError):
    """The champion is another than the one that a decision was made against: another decision came first."""


class NotificationError(PreflowError, RuntimeError):
    """A notification could not be sent: the block's address is wrong, or what is there does not take it."""


class UiError(PreflowError, RuntimeError):
    """A server or user interface of MLflow or Prefect cannot be started."""


class TrainingError(PreflowError, RuntimeError):
    """Training broke."""


class KilledRankError(TrainingError):
    """A rank of a launch was killed from outside; another attempt goes on from the last checkpoint."""


class NonFiniteLossError(TrainingError):
    """The loss, a gradient or a weight became NaN or infinite."""


class RuinedModelError(TrainingError):
    """After the last step the model gives its own training rows less than guessing among all tokens would."""
