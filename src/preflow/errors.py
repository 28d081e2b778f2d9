"""Every error that Preflow raises on purpose.

Each class also inherits its standard-library kin, so ``except ValueError`` keeps working::

    PreflowError
    ├── ConfigError (ValueError)              a recipe that cannot be run
    │   └── MissingDependencyError (ImportError)
    ├── DataError (ValueError)                rows or files that cannot be used
    │   ├── DataFileError                     a file that cannot be read: file, line, reason
    │   │   └── DataDownloadError             the same call may go through later
    │   ├── DataUnfitError                    the set as a whole is unfit: critical findings
    │   └── TemplateError                     the chat template does what training cannot follow
    ├── ArtifactError (RuntimeError)          a stage folder that is not what its manifest says
    ├── ModelError (RuntimeError)             weights that cannot be loaded or used
    │   ├── ModelNotFoundError (FileNotFoundError)
    │   │   └── ModelDownloadError            the same call may go through later
    │   ├── UnsafeWeightsError                weights in a format that can run code
    │   └── DpoCheckpointError                a DPO checkpoint where an SFT model belongs
    ├── ProofError (RuntimeError)             DPO must not start: the reference is not what it should be
    │   ├── PolicyMismatchError               the policy at step 0 is not the reference
    │   ├── StoredValueError                  a stored log-prob is not what the SFT model gives
    │   ├── ForgottenSftError                 the reference is the base model, not the SFT model
    │   ├── AdapterDtypeError                 the adapter trains in another dtype than the reference was computed in
    │   └── NothingTrainableError             no parameter would change
    ├── UiError (RuntimeError)                a user interface that cannot be started
    └── TrainingError (RuntimeError)          training broke
        ├── NonFiniteLossError                the loss, a gradient or a weight is NaN or infinite
        └── RuinedModelError                  the last step left a model that says less than guessing does

Messages say what was got, where, what was expected, and what to do.
"""


class PreflowError(Exception):
    """Root of every error that Preflow raises on purpose."""


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
    """The data set as a whole is unfit for training: critical findings of the gate."""


class TemplateError(DataError):
    """A chat template whose rendering cannot be split into prompt and response."""


class ArtifactError(PreflowError, RuntimeError):
    """A stage folder whose contents differ from its manifest."""


class CodeChangedError(PreflowError, RuntimeError):
    """Preflow's own source files were changed while it runs."""


class ModelError(PreflowError, RuntimeError):
    """Model weights that cannot be loaded or used."""


class UnknownShapeError(ModelError):
    """A model of which neither memory nor arithmetic can be foreseen; it may train all the same."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """``model_name`` is no folder, no packaged model and no hub model that can be reached."""


class ModelDownloadError(ModelNotFoundError):
    """A packaged model or a hub model could not be downloaded; trying again may help."""


class UnsafeWeightsError(ModelError):
    """Weights stored in a format that can execute code when loaded (anything but safetensors)."""


class DpoCheckpointError(ModelError):
    """A checkpoint of a DPO run was given where the SFT model belongs."""


class ProofError(PreflowError, RuntimeError):
    """The proof before the first DPO step failed, so DPO must not start."""


class PolicyMismatchError(ProofError):
    """The policy at step 0 does not give the stored reference log-probs."""


class StoredValueError(ProofError):
    """A stored reference log-prob is not what an independent forward of the SFT model gives."""


class ForgottenSftError(ProofError):
    """The reference equals the base model: the SFT weights were lost or never trained."""


class AdapterDtypeError(ProofError):
    """The trainable weights are not in the dtype in which the reference was computed."""


class NothingTrainableError(ProofError):
    """No parameter of the policy would be changed by training."""


class UiError(PreflowError, RuntimeError):
    """The MLflow or Prefect user interface cannot be started."""


class TrainingError(PreflowError, RuntimeError):
    """Training broke."""


class NonFiniteLossError(TrainingError):
    """The loss, a gradient or a weight became NaN or infinite."""


class RuinedModelError(TrainingError):
    """After the last step the model gives its own training rows less than guessing among all tokens would."""
