"""What an operator sees of a captioner in production.

drift/         what has moved in pictures and captions: python -m monitoring.drift
"""
