"""Losses on logits and integer labels."""

from dropzoo.training.losses.dice import Dice, DiceCrossEntropy, SmoothedCrossEntropy, default_loss
from dropzoo.training.losses.imbalance import FocalCrossEntropy, Tversky

__all__ = ["Dice", "DiceCrossEntropy", "FocalCrossEntropy", "SmoothedCrossEntropy", "Tversky", "default_loss"]
