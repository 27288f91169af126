"""The web application: upload a picture, watch its music come to be, listen.

config.py     what can be set, from the environment
settings.py   Django's settings, made of it
urls.py       every address of pages and API
server.py     `melodify web`: pages, API and workers as processes; health.py asks whether they are ready
gunicorn.py   how pages and API are served, by wsgi.py
parent.py     ends a process with the one that started it
tracks/       the one app
"""
