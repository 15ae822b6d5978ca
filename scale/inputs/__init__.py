"""Where pictures come from: listing them, and reading their bytes."""
