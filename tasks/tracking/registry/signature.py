"""Who decided: a name that is given, or that of the login to MLflow."""

import os

from tasks.tracking.registry.decisions import Draft


def signed(draft: Draft, by: str, reason: str) -> Draft:
    """A draft with the name and the reason of who decided.

    The name counts as that of the login where MLflow asks for one and it is the same; else it is what someone declared.
    """
    login = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return draft.model_copy(
        update={"by": by, "reason": reason, "identity": "login" if login and login == by else "declared"}
    )
