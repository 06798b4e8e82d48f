"""Second-stage classifiers over crops of what a view shows: nothing is detected again.

view, results --plan--> boxes without a row --stage (Ray Data): read, decode, crop, ask--> rows of `classifications`
A row is known by the detection (inference key, image, rank) and by the classifier key: model, margin and classes.
Whatever detects anew has a new inference key, so what was classified before stays as it is.
"""
