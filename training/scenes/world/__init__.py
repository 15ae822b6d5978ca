"""What a scene is: its places and things, how they may stand, and how one is sampled."""
