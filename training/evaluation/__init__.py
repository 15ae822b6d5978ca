"""What an evaluation measures, and the page and the model card that show it."""
