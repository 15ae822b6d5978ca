"""Captions in the forms in which people have them, for the source `folder`.

recognise.py        tells the form of a folder or a file; json_form.py, of a JSON file
forms.py            what a form is, and reading it
read_folder.py      reads all captions of a folder and finds their pictures
table.py            CSV and its kin, lines of JSON; with columns.py, csv_rows.py, text_lines.py
coco_files.py       COCO, VizWiz, nocaps
json_lists.py       Karpathy's files, TextCaps, lists and mappings
stored_tables.py    Parquet and Arrow
text_beside.py      a text file beside each picture
entry.py            what every reader gives
collected.py        the entries put together by picture, with little memory
picture_names.py    finds the picture that a name means
caption_text.py     captions cleaned of HTML and lists
"""
