"""Filters: one file each, a frozen config and a pure function from rows to assertions. A layer is what one of
them says; it corrects what is shown and never what was seen.
"""
