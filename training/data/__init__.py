"""The caption data set between the stages: its captions, its images, and how they are read."""
