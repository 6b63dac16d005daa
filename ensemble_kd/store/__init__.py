"""What is kept for later runs: folders by the digest of all that determined them."""

from ensemble_kd.store.artefacts import Store
from ensemble_kd.store.keyed import KEY_LENGTH, Keyed

__all__ = ["KEY_LENGTH", "Keyed", "Store"]
