"""Losses between logits and integer labels."""

from dropzoo.training.losses.cross_entropy import SmoothedCrossEntropy
from dropzoo.training.losses.default import default_loss
from dropzoo.training.losses.dice import Dice, DiceCrossEntropy
from dropzoo.training.losses.focal import FocalCrossEntropy
from dropzoo.training.losses.tversky import Tversky

__all__ = ["Dice", "DiceCrossEntropy", "FocalCrossEntropy", "SmoothedCrossEntropy", "Tversky", "default_loss"]
