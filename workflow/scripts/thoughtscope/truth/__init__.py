"""The room of truth: which states a taught model's text has where, and how well latents and verdict find them.

It scores the evidence and is read by nothing that makes it.
"""
