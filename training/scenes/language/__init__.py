"""How a scene is put into words, and how the words are checked against it."""
