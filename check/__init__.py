"""The main job: one run through every room, one verdict on one screen, one page that links every report.

It starts the other rooms as the commands a person would type and reads the files they leave; it imports none of them.
"""
