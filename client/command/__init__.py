"""The command line `python -m client`: from folders of pictures to files of captions."""
