"""The web application: upload a picture, watch its music come to be, listen.

config.py     what can be set, from the environment
settings.py   Django's settings, made of it
server.py     `melodify web`: pages, API and workers as processes
tracks/       the one app
"""
