"""The judge that a recipe names."""

from preflow.config.evaluation.judge import JudgeSettings
from preflow.judges.verdict import Judge


def judge_of(settings: JudgeSettings, section: str = "evaluation.judge") -> Judge:
    """Make the judge that the settings describe; its libraries are imported only then.

    Args:
        settings: The judge.
        section: Where a recipe describes it, which errors name.

    Raises:
        JudgeError: It cannot be used.
    """
    if settings.kind == "endpoint":
        from preflow.judges.endpoint import EndpointJudge

        return EndpointJudge(settings, section)
    if settings.kind == "classifier":
        from preflow.judges.classifier import ClassifierJudge

        return ClassifierJudge(settings, section)
    from preflow.judges.function import FunctionJudge

    return FunctionJudge(settings, section)
