"""Evaluation of a captioner.

evaluate        from settings to reports
score_results   the same for a file of anybody's captions
results_file    captions in COCO's form
captioning      captions of a split, as a server would write them
on_device       the captioner as a server runs it, or on another device
measures        all that captions are measured by; the scores themselves are in scores/
precision_gate  how much narrower weights may change the captions

What is written of it is in report/.
"""
