"""Tracks: from a visitor's picture to a song that can be heard, and until it is deleted.

models.py      one row a track: what was asked, how far it is, what came out
jobs.py        what may happen to a row, and when: create, claim, beat, finish, cancel, reap, delete
work.py        what a worker does for a row; tasks.py and management/commands/worker.py run it
files.py       its files in the project's store, and how they are served
visitors.py    whose it is
limits.py      how much one client may ask for
views.py       the pages; templates/, static/ and locale/ are theirs
api.py         the same for programs: serializers.py its form, schema.py names for OpenAPI
problems.py    what an error is, for both
tallies.py     how many songs ended how, for the metrics
operations.py  health, readiness and metrics, for whoever runs the server; middleware.py answers them first
"""
