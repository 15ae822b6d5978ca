"""The pictures and options of a request.

reading.py          bytes, forms and JSON
options.py          options under the names that the captioner gives them
hugging_face.py     options under the names of Hugging Face
fetching.py         pictures by URL, if that is switched on
checked_network.py  connects only to addresses that were checked
addresses.py        which addresses may be asked
"""
