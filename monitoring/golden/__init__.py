"""Golden pictures: pictures whose captions are known, asked of a served captioner again and again.

reference.py   the pictures, what they must give, and how far a reply may be from that
asking.py      asks a server about each of them, and compares
recording.py   writes the reference, from a captioner that is trusted
gauges.py      what a round found, for Prometheus
scenes/        eight drawn scenes, and their reference for the captioner that ships
"""
