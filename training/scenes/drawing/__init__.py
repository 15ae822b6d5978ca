"""How a scene becomes a picture."""
