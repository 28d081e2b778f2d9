"""The judge that a recipe names."""

from preflow.config.evaluation.judge import JudgeSettings
from preflow.judges.verdict import Judge


def judge_of(settings: JudgeSettings) -> Judge:
    """Make the judge that the settings describe; its libraries are imported only then.

    Raises:
        JudgeError: It cannot be used.
    """
    if settings.kind == "endpoint":
        from preflow.judges.endpoint import EndpointJudge

        return EndpointJudge(settings)
    if settings.kind == "classifier":
        from preflow.judges.classifier import ClassifierJudge

        return ClassifierJudge(settings)
    from preflow.judges.function import FunctionJudge

    return FunctionJudge(settings)
