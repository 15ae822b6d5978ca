"""What an operator sees of a captioner in production.

quality/       what people think of captions, by week and model: python -m monitoring.quality
"""
