"""Compare two sets of results before a publication: counts, gates and pictures of the changes.

two sides --compare--> Comparison (relations in a scratch database) --measure--> Impact --gates--> passed or failed
                                                         `--choose--> samples --report--> index.html, impact.json
"""
