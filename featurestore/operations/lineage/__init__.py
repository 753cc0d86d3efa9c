"""lineage: from source columns through views, functions and services to training frames and serving.

graph    nodes and edges out of definitions
uses     the training frames and the serving that services are known to have
lineage  a part of the graph, up or down from a node
text     as a tree to read, and as diagrams
"""
