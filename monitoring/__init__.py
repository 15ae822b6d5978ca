"""What an operator sees of a captioner in production.

prometheus/    what is scraped, and rules: figures that are computed, and alerts
alertmanager/  whom alerts reach, and which of them silence others
grafana/       the dashboard and where it reads
panels.py      what the dashboard shows
dashboard.py   writes the dashboard: python -m monitoring.dashboard
picture.py     draws the dashboard from Prometheus: python -m monitoring.picture
quality/       what people think of captions, by week and model: python -m monitoring.quality
drift/         what has moved in pictures and captions: python -m monitoring.drift
"""
