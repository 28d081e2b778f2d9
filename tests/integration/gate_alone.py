"""The pipeline with real data validation and fakes behind it; prints what Prefect's server then holds as tables."""

import json
import os

from tests.integration.fakes import install


def print_tables() -> None:
    """Every table of the embedded server, as one JSON object by key."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        found = client.request("POST", "/artifacts/filter", json={"limit": 200}).json()
    tables = [artifact for artifact in found if artifact["type"] == "table"]
    print(json.dumps({table["key"]: [json.loads(table["data"]), table["description"]] for table in tables}))


if __name__ == "__main__":
    install(real=frozenset({"expectations.gate"}))
    import typer

    import flows.two_stage
    from flows.commands.run import main

    flow = flows.two_stage.two_stage

    def pipeline(recipe: str, overrides: dict[str, object]) -> object:
        """The flow on the recipe and then on that of ``THEN``; what they left in the server while it still runs."""
        try:
            flow(recipe, overrides)
            return flow(os.environ["THEN"], overrides)
        finally:
            print_tables()

    vars(flows.two_stage)["two_stage"] = pipeline
    typer.run(main)
