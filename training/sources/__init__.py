"""The sources of `training.prepare`: each writes a caption data set (`training.data.dataset`).

settings.py        the settings of every source
scenes.py          drawn scenes (see `training.scenes`)
folder.py          a folder of the user's pictures, with captions in one of many forms
captions/          those forms
checked_pictures.py the pictures of a folder that can be used
look.py            says what a folder holds, and writes nothing
webdataset.py      tar shards, with tar_samples.py for one shard
feedback.py        what the gateway's users corrected
coco.py            COCO 2014, with download.py for its archives
faults.py          checks of other people's values, and lists of what is wrong
splits.py          which split a picture belongs to
picture_extensions.py how the names of picture files end
disk_space.py      whether the disk has room
"""
