"""Where captions go: rows, and files that appear whole."""
