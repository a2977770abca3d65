"""Room 4, SAEs: k-sparse autoencoders, fetched or trained, and applied exactly."""
