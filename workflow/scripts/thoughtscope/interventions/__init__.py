"""Room 7, interventions: what the model does otherwise when a latent is taken away, or added, at its site."""
