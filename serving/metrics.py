"""What Prometheus is told."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector


class Metrics:
    """The server's figures. Gauges are read from the service when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "melodify_requests",
            "Predict requests by HTTP status; 499: the client went away",
            ["status"],
            registry=self.registry,
        )
        self.playing = Gauge("melodify_songs_playing", "Songs that are being made", registry=self.registry)
        self.waiting = Gauge("melodify_songs_waiting", "Songs that wait for their turn", registry=self.registry)
        self.ready = Gauge("melodify_ready", "1 when the health route answers 200", registry=self.registry)
        self.audio_seconds = Counter("melodify_audio_seconds", "Music made and stored", registry=self.registry)
        self.song_seconds = Histogram(
            "melodify_song_seconds",
            "From the request for a song to its card in the store",
            buckets=(0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600),
            registry=self.registry,
        )
