"""The music pipeline on Kubeflow: three components, the graph, compile and run.

components.py        what each of the three steps does, as plain functions
graph.py             how they are wired, and the compiled spec
run.py               a run for a picture, wherever the settings have it run
local.py vertex.py   on this machine with kfp.local, or on Vertex AI Pipelines
batch.py             the graph for many pictures, and its run
"""
