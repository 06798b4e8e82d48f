"""Snips: crops of what was seen, as JPEGs in a folder of their own. Full frames are never copied.

results --plan--> images whose snips are not there --stage (Ray Data): read, decode, crop, create--> rows of `snips`
A pass of its own, after the images of the run have been seen. Names and bytes follow from the image, the row of
`results` and the settings, so that a second run, another order or two runs at once write nothing twice.
"""
