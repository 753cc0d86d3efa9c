"""explain: why a key has a value at an instant, and what a served request was answered from.

explain              the rows that made a value, and those left out, by the as-of query
explanation          what it answers, as text and in notebooks
request              a logged request: each value as it was served, and how training explains it
request_explanation  what that answers
"""
