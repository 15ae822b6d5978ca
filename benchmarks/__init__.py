"""Measurements, side by side and in one run; and checks at real sizes."""
