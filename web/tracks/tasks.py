"""What is put into the queue: a row that may be worth a look."""

from django_tasks import task


@task()
def make(track_id: str) -> None:
    """Make a track, if nobody has."""
    from web.tracks import work

    work.make(track_id)
