"""Load tests: profiles of load against real servers of their own (`make loadtest PROFILE=NAME`).

thresholds.yaml  every profile: what it sends, in which stages, and the limits of its figures
profiles.py      reads and checks that file
servers.py       starts the TorchServe and the gateway of a run, on free ports
kinds.py         the kinds of requests: how each is written, and how its reply is read
comparison.py    compares a reply with the one to the same picture alone
expected.py      the captions of each picture alone, and what may differ from them under load
run.py           what Locust is told of a run
locustfile.py    the users, the stages of a profile for Locust, and a record of every request
records.py       those records, and the file of them
samples.py       memory and processor time of every process during the run
figures.py       what is measured, from records and samples
report.py        the table and the plot
page.py          puts the figures of all profiles into docs/operations.md
__main__.py      the command: one profile, its figures, its limits, the exit status
chaos/           faults on purpose, behind and in front of the gateway (`make chaos`)
"""
