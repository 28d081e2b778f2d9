"""A recipe with seven registered versions, and ``preflow promote`` on them."""

from tests.fixtures.promotions import database, file, promote

__all__ = ["database", "file", "promote"]
