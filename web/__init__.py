"""The web application: upload a picture, watch its music come to be, listen.

config.py     what can be set, from the environment
settings.py   Django's settings, made of it
server.py     `melodify web`: pages, API and workers as processes
gunicorn.py   how pages and API are served; parent.py ends all with the process that started them
tracks/       the one app
"""
