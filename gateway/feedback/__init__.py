"""What people think of captions, on its way to the database (`feedback/`).

recorder.py  a thread that writes: what was answered, and what people say of it
measures.py  what it counts, for Prometheus
"""
