"""Lookup: the features of rows as of now, from the online store, and the log of what was answered.

serving        which version of a service answers, loaded once and watched
lookup         keys, one round trip, decoding, on-demand functions
parts          one view of a service: its slots, or its tiles
online_result  the answer, in every form that a model takes
recorder       which answers are logged
served_rows    answers as rows of the log, and found again
store_version  what a segment of the log says of the process that wrote it
"""
