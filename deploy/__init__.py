"""Running the captioner: on this machine, and later on others."""
