"""The caption data set that all stages share: its captions, its pictures, and how they are read.

dataset.py           the data set on disk, loading and writing
splits.py            the names of splits
seen_images.py       which images a captioner was trained on
caption_index.py     its captions and file names, with little memory
json_members.py      reads a large JSON file entry by entry
id_index.py          finds image ids
tar_picture.py       a picture inside a tar file
stored_picture.py    a picture inside a Parquet or Arrow file
image_decoding.py    decodes pictures in worker processes
"""
