"""The store inside of other people's frameworks: one module or folder each, which imports that framework and nothing of another.

Each is thin: values, fingerprints and refusals are the store's own, and only their names and places are the framework's.
"""
