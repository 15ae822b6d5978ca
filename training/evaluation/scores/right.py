"""When a caption counts as right by its references alone.

Then it is as right as its CIDEr is high, in shares of what a person's caption gets.
"""

#: CIDEr that counts as a person's where pictures have one reference each, so that it is unknown.
HUMAN_CIDER = 1.0
#: A caption counts as right from this share of a person's CIDEr on.
RIGHT = 0.5
