"""Best of several takes: a description with other seeds, ranked by how well what is heard fits what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from melodify_lib.music.finish import check_request
from melodify_lib.music.measure import SILENCE_MAX_S, TEMPO_TOLERANCE, key_fits
from melodify_lib.nouns import MusicDescription, Take, Track

if TYPE_CHECKING:
    from melodify_lib.stages import Musician, OnProgress


def play_best(
    musician: Musician,
    description: MusicDescription,
    seconds: float,
    seed: int,
    takes: int = 1,
    on_progress: OnProgress = lambda share: None,
    **extras: Any,
) -> Track:
    """Play `takes` takes, of the seeds from `seed` on; the track is the best one's, and its card says why.

    A tie goes to the lower seed, so that a single take is what `Musician.play` plays. Raises `InputError` for what
    `check_request` refuses.
    """
    check_request(seconds, seed, takes=takes)
    if takes == 1:
        return musician.play(description, seconds, seed, on_progress, **extras)
    best: tuple[Take, Track] | None = None
    ranked: list[Take] = []
    for number in range(takes):

        def tell(share: float, number: int = number) -> None:
            on_progress((number + share) / takes)

        track = musician.play(description, seconds, seed + number, tell, **extras)
        take = judge(track)
        ranked.append(take)
        if best is None or take.fit > best[0].fit:
            best = take, track
    assert best is not None  # noqa: S101  at least one take was played
    ranked.sort(key=lambda take: (-take.fit, take.seed))
    return best[1].with_card(takes=tuple(ranked))


def judge(track: Track) -> Take:
    """How well a track fits what was asked: 1 for the tempo, up to 1 for how clear its key is, 1 for no hole in it."""
    asked, got = track.card.requested, track.card.measured
    fit, reasons = 0.0, []
    if got.bpm is None or asked.bpm is None:
        fit += 0.5
        reasons.append("no pulse is heard")
    else:
        is_right = abs(got.bpm / asked.bpm - 1) <= TEMPO_TOLERANCE
        fit += is_right
        reasons.append(f"{got.bpm:g} bpm is {'' if is_right else 'not '}{asked.bpm:g}")
    fits = key_fits(track.audio.mean(axis=0), track.sample_rate)
    if asked.key in fits:
        margin = fits[asked.key] - max(value for name, value in fits.items() if name != asked.key)
        fit += min(max(0.5 + margin, 0.0), 1.0)
        reasons.append(
            f"{asked.key} stands out by {margin:+.2f}" if margin > 0 else f"{got.key} is heard, not {asked.key}"
        )
    silence = got.longest_silence_s or 0.0
    is_whole = silence <= SILENCE_MAX_S
    fit += is_whole
    if not is_whole:
        reasons.append(f"a silence of {silence:g} s")
    return Take(seed=track.card.seed, fit=round(fit, 3), reasons=tuple(reasons))
