"""What encoding leaves on disk: features, and pixels for a CLIP that is still learning."""
