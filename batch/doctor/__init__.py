"""Check tables, views, runs, models and uploads against one another, and repair what loses nothing.

diagnose(DoctorSettings) -> Findings; a check is a function that yields them and writes nothing
"""
