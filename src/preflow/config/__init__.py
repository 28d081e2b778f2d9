"""Every setting of a run: frozen, documented under each field, unknown keys refused.

A setting, its checks and the reading of recipe files belong here; what computes with a setting does not. Importing this
package loads no torch.
"""

from preflow.config.evaluation.measures import EvaluationSettings
from preflow.config.launch import Launch
from preflow.config.recipe import Recipe, recipe_schema

__all__ = ["EvaluationSettings", "Launch", "Recipe", "recipe_schema"]
