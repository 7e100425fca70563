"""Phantoms: procedural panoramic radiographs, each with its canal mask, buccal region and named look."""

from models.phantoms.looks import LOOKS, PLAIN
from models.phantoms.phantom import Phantom, nth_phantom, phantom, phantoms

__all__ = ["LOOKS", "PLAIN", "Phantom", "nth_phantom", "phantom", "phantoms"]
