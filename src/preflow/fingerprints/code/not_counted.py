"""Which modules are part of no identity, and why. Every other module is in the identity of at least one stage."""

#: Not followed: whatever uses these, their code changes no number. Where a function of one is asked for by name, what
#: it uses of its own module counts.
NOT_COUNTED = {
    "preflow.config": "settings count by their values, their methods where code reads an attribute of that name",
    "preflow.comparison": "compares finished runs",
    "preflow.review": "asks people about finished models",
    "preflow.model_card": "describes a finished run",
    "preflow.card_sections": "describes a finished run",
    "preflow.verification": "checks finished runs",
    "preflow.specs": "specifications count by their values, their methods as those of settings",
    "preflow.errors": "classes without behaviour; their names and bases count where code names them",
    "preflow.estimates": "estimates are shown and decide nothing",
    "preflow.diagnosis": "reads what the stages of a finished run left, and decides nothing",
    "preflow.observer": "tells people what happens",
    "preflow.environment": "says where files are kept",
    "preflow.redaction": "takes secrets and control characters out of texts that are shown",
    "preflow.console": "prints what is shown",
    "preflow.foreign_files": "decides whether a file may be read, not what is in it",
    "preflow.hub": "tells which trouble with the hub may pass",
    "preflow.fingerprints.code": "decides whether something is computed, not what comes out",
    "tasks.runtime.caching": "decides whether something is computed, not what comes out",
    "tasks.runtime.cpu_precision": "names the precision, which is in the identity",
    "tasks.runtime.launcher": "starts ranks; it is asked for where a stage runs in them",
    "tasks.runtime.libraries": "names the versions, which are in the identity",
    "tasks.runtime.lost_output": "lets a run go on whose output has lost its reader",
    "tasks.runtime.progress": "tells people what happens",
    "tasks.runtime.reporting": "tells people what happens",
    "tasks.tracking": "writes down what happened",
}
#: Followed as any other, but no stage uses them. One that a stage begins to use counts, and its entry here is wrong.
NOT_REACHED = {
    "preflow": "holds the version and when the process began",
    "preflow.benchmarks.documents": "writes prompts of tasks into files, whose digests are inputs of data validation",
    "preflow.chat_templates.families": "turns a recipe's chat_template into text, which is among the settings",
    "preflow.data.files.split_names": "chooses files of a folder; the digests of those chosen are inputs",
    "preflow.data.row_formats.examples": "shows rows to readers and tests",
    "preflow.data.quality.wording.paraphrase_vectors": "makes the table of word vectors, which counts as a data file",
    "preflow.logprobs.cli": "shows and prunes the store",
    "preflow.logprobs.inventory": "lists what the store holds",
    "preflow.maths.rater_agreement": "measures how far reviewers agree",
    "preflow.models.merge": "exports a finished model",
    "preflow.judges.kept_verdicts": "repeats kept verdicts, so that a finished run can be checked",
    "preflow.on_policy.rounds": "compares finished rounds, and says when they end",
    "preflow.promotion.held_out": "leaves rows out of a comparison of finished models",
    "preflow.promotion.verdict": "says what the measures of two models mean for the champion",
    "preflow.promotion.win_rates": "compares finished models",
    "preflow.stages.promotion": "measures finished models once more",
    "tasks.evidence": "compares finished models, and keeps nothing in the store",
    "preflow.stages.review": "gathers answers of finished models for people",
    "tasks.review": "opens and collects reviews, and keeps nothing that a stage reads",
    "tasks.promotion": "compares finished models, and keeps nothing in the store",
    "tasks.fetch": "fetches the base model, whose digest is an input",
    "preflow.units": "says sizes and times to people",
    "preflow.models.base_checks": "refuses models; what it lets through is an input by its digest",
    "preflow.models.packaged": "fetches a model once; the digest of its files is an input",
}
#: Settings and specifications: their fields count by value.
SETTINGS = ("preflow.config", "preflow.specs")
#: What an error is given is text. Of its class the name and the bases count, which say where it is caught.
ERRORS = frozenset({"preflow.errors"})
#: Decorators that say when a function runs and how often it is tried, not what it computes.
SCHEDULING = frozenset({"prefect.task"})
#: Classes of texts for people: what one is made of does not count.
TEXTS = frozenset({"preflow.observer.UserText"})
