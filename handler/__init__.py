"""The TorchServe handler and what travels with it in the archive."""
