"""Servers on this machine that stand in for the cloud: the real clients talk to them over the wire.

They are strict where the services are: what the SDKs' own types do not know is refused.
"""
