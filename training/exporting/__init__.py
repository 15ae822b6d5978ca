"""Export of a checkpoint.

export            from settings to the artifact folder
precision_choice  the precision, as asked for or by rule
sample_pictures   pictures of a data set, or generated ones
comparison        the artifact against its checkpoint
"""
