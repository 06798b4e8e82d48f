"""Snips: crops of detections, written as JPEGs into a separate folder. Full frames are never copied.

results --plan--> images without snips --stage (Ray Data): read, decode, crop, create--> rows of `snips`
This is a separate pass after the images of the run have results. Names and bytes depend only on the image, the row
of `results` and the settings. Repeated, reordered or concurrent runs therefore write no file twice.
"""
