"""One trainer over loss terms; collation."""

from innerlingua.training.terms import Term
from innerlingua.training.trainer import Trainer

__all__ = ["Term", "Trainer"]
