"""The sources of `training.prepare`: each writes a caption data set (`training.data.dataset`).

settings.py        the settings of every source
scenes.py          drawn scenes (see `training.scenes`)
folder.py          a folder of the user's pictures, with caption_files.py for its captions
csv_rows.py        rows of a CSV file, with quotes that are never closed
caption_text.py    captions cleaned of HTML and lists
webdataset.py      tar shards, with tar_samples.py for one shard
coco.py            COCO 2014, with download.py for its archives
faults.py          checks of other people's values, and lists of what is wrong
splits.py          which split a picture belongs to
disk_space.py      whether the disk has room
"""
