"""Which modules are part of no identity, and why. Every other module is in the identity of at least one stage."""

#: Not followed: whatever uses these, their code changes no number.
NOT_COUNTED = {
    "preflow.config": "settings count by their values, their methods where code reads an attribute of that name",
    "preflow.specs": "specifications count by their values, their methods as those of settings",
    "preflow.errors": "classes without behaviour",
    "preflow.estimates": "estimates are shown and decide nothing",
    "preflow.observer": "tells people what happens",
    "preflow.environment": "says where files are kept",
    "preflow.redaction": "takes secrets out of texts that are shown",
    "preflow.hub": "tells which trouble with the hub may pass",
    "preflow.fingerprints.code": "decides whether something is computed, not what comes out",
}
#: Followed as any other, but no stage uses them. One that a stage begins to use counts, and its entry here is wrong.
NOT_REACHED = {
    "preflow": "holds the version and when the process began",
    "preflow.data.quality.wording.paraphrase_vectors": "makes the table of word vectors, which counts as a data file",
    "preflow.logprobs.cli": "shows and prunes the store",
    "preflow.logprobs.inventory": "lists what the store holds",
    "preflow.models.merge": "exports a finished model",
    "preflow.units": "says sizes and times to people",
    "preflow.models.packaged": "fetches a model once; the digest of its files is an input",
}
#: Settings and specifications: their fields count by value.
SETTINGS = ("preflow.config", "preflow.specs")
#: What an error is given is text.
ERRORS = frozenset({"preflow.errors"})
