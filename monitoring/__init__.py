"""What an operator sees of a captioner in production.

prometheus/    what is scraped, and rules: figures that are computed, and alerts
alertmanager/  whom alerts reach, and which of them silence others
grafana/       the dashboard and where it reads
panels.py      what the dashboard shows
dashboard.py   writes the dashboard: python -m monitoring.dashboard
picture.py     draws the dashboard from Prometheus: python -m monitoring.picture
canary.py      `python -m monitoring.canary`: asks about pictures whose captions are known
golden/        those pictures, and how replies are compared
compare.py     `python -m monitoring.compare`: two captioners side by side
histogram.py   figures of a histogram, with their intervals
key.py         the key with which a gateway is asked
quality/       what people think of captions, by week and model: python -m monitoring.quality
drift/         what has moved in pictures and captions: python -m monitoring.drift
"""
