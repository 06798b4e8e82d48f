"""What people would see change if one side were published in place of another: counts, gates, pictures.

two sides --compare--> Comparison (relations in a scratch database) --measure--> Impact --gates--> passed or failed
                                                         `--choose--> samples --report--> index.html, impact.json
"""
