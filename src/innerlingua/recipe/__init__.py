"""The recipe: the YAML file that describes one run.

Reading and checking import no torch. `innerlingua.recipe.build` joins a recipe to model, data, method and trainer; it
imports torch, so it is imported by its own name and only when something runs.
"""

from innerlingua.recipe.loading import load_recipe, to_yaml
from innerlingua.recipe.schema import (
    PARTS,
    TRAINER_DEFAULTS,
    AlignmentSection,
    DataSection,
    EvaluationSection,
    ModelSection,
    PeftSection,
    Recipe,
)

__all__ = [
    "PARTS",
    "TRAINER_DEFAULTS",
    "AlignmentSection",
    "DataSection",
    "EvaluationSection",
    "ModelSection",
    "PeftSection",
    "Recipe",
    "load_recipe",
    "to_yaml",
]
