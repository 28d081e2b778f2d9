"""``python -m preflow.config`` prints the JSON schema of a recipe, for editors."""

import json

from preflow.config import recipe_schema

print(json.dumps(recipe_schema(), indent=1))
