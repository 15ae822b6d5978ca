"""How good captions are, by the feedback of people: python -m monitoring.quality.

__main__.py  the command
figures.py   share of thumbs up, and CIDEr against corrections, by week and by model version
intervals.py how sure they are
words.py     the words that people correct most often
table.py     the table in the terminal, and JSON
plot.py      the plot
gauges.py    the gauges of Prometheus
"""
