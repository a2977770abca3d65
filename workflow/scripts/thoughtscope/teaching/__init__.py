"""Beside the main road: lessons in thinking whose states are known, and teaching them to a model."""
