"""``preflow schema``: the JSON schema of a recipe, for editors.

The same as ``python -m preflow.config``.
"""

import json


def main() -> None:
    """Print the JSON schema of a recipe, with which an editor completes and checks settings."""
    from preflow.config import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))
