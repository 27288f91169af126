"""What no example may hold: names of artists and songs, secrets, and personal data.

Secrets are found by detect-secrets (Yelp) and a few keys that it does not know; telephone numbers
by phonenumbers (Google's libphonenumber). Names come from ``forbidden.yaml``: a list is never whole,
so a clean file is not proof. Texts are looked at as they would be read aloud: whatever Unicode offers
to write the same letters otherwise is undone first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from melodify_lib.tables import read_yaml

_PLUGINS = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "CloudantDetector",
    "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector", "JwtTokenDetector", "KeywordDetector",
    "MailchimpDetector", "NpmDetector", "OpenAIDetector", "PrivateKeyDetector", "PypiTokenDetector",
    "SendGridDetector", "SlackDetector", "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector",
    "TwilioKeyDetector",
)  # fmt: skip
"""All of detect-secrets but those that go by entropy alone: prose has long words too."""

_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{30,}"  # Google
    r"|sk-[\w-]{20,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|pplx-[A-Za-z0-9]{20,}"
    r"|r8_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}|github_pat_\w{20,}|npm_[A-Za-z0-9]{20,}|dckr_pat_[\w-]{20,}"
    r"|dop_v1_[0-9a-f]{32,}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|hvs\.[\w-]{20,}|dapi[0-9a-f]{32}|glsa_\w{20,}"
    r"|lin_api_\w{20,}|[rs]k_live_\w{16,}|key-[0-9a-f]{32}|AGE-SECRET-KEY-1[A-Z0-9]{20,})"
)
_MAIL = re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+\.[\w.-]*\w")
_CARD = re.compile(r"\b(?:\d(?:[ -]?\d){12,18}|\d{4}(?:\.\d{4}){3}|\d{4}\.\d{6}\.\d{4,5})\b")
_IBAN = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,4})?\b")
_IBAN_LENGTHS = {
    "AE": 23, "AT": 20, "BE": 16, "BG": 22, "BR": 29, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20,
    "ES": 24, "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27,
    "LI": 21, "LT": 20, "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24,
    "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29,
}  # fmt: skip
_SSN = re.compile(
    r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])"
    r"|(?i:\bssn|\bsocial security(?: number)?)\W{0,9}\d{3}[ .-]?\d\d[ .-]?\d{4}\b"
)
_PHONES = {
    region: re.compile(rf"(?<![\w.,:/-])(?<!\d )(?:{shape})(?![\w:/-]|[.,]\d| \d)")
    for region, shape in {
        "GB": r"\(?0\d{2}\)? ?\d{4} ?\d{4}|\(?0\d{3}\)? ?\d{3} ?\d{4}|\(?0\d{4}\)? ?\d{3} ?\d{3}",
        "DE": r"\(?0\d{2,4}\)?[ /-]{1,3}\d{5,8}|(?:\(0\d{2,4}\) ?|0\d{2,4} ?/ ?)\d{3,4}[ -]\d{2,4}|01[5-7]\d{8,9}",
        "FR": r"0[1-9]([ .-]?)\d\d(?:\1\d\d){3}",
        "KR": r"\(?0\d{1,2}\)?[ -]\d{3,4}-\d{4}|010\d{8}",
        "JP": r"\(?0\d{1,3}\)?[ -]\d{2,4}-\d{4}|0[789]0\d{8}",
    }.items()
}
"""How numbers are written at home. The trunk prefix 0 tells them from years, prices and scores, the grouping from
dates, times and rows of figures; libphonenumber alone takes many of those for numbers."""

_WINDOW, _OVERLAP = 5_000, 1_000  # characters: some detectors take quadratic time
_INVISIBLE = re.compile(r"[\xad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

Found = tuple[str, str]
"""(what was found, how to mend it)"""


def inspect(text: str) -> Iterator[Found]:
    """What is in `text` that should not be; secrets are named by kind and never repeated."""
    found = (one for window in _windows(_normal(text)) for one in _inspect_window(window))
    yield from dict.fromkeys(found)


def unescaped(text: str) -> str:
    """JSON, or what was meant to be JSON, without the escapes that could hide what it says."""
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _CONTROLS.get(match[2], match[2]), text)
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # makes pairs one


def has_half_surrogate(text: str) -> bool:
    """Can it not be written as UTF-8?"""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _normal(text: str) -> str:
    text = _INVISIBLE.sub("", text.encode("utf-8", "replace").decode())
    return unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'")


def _windows(text: str) -> Iterator[str]:
    """All of the text in pieces that overlap, cut between words where there are words."""
    start = 0
    while len(text) - start > _WINDOW:
        end = max(text.rfind(" ", start + _WINDOW - _OVERLAP, start + _WINDOW), start + _WINDOW - _OVERLAP)
        yield text[start:end]
        start = max(text.rfind(" ", start + 1, end - _OVERLAP + 100), end - _OVERLAP)
    yield text[start:]


def _inspect_window(text: str) -> Iterator[Found]:
    in_one_line = " ".join(text.split())
    for name in dict.fromkeys(match[0] for match in _names().finditer(in_one_line)):
        yield f"names an artist or a song: {name!r}", "say what the music is like, not whose it is"
    for kind in _secrets(text):
        yield f"holds what looks like a secret ({kind})", "delete it, and change it where it is used"
    for kind in _personal(in_one_line):
        yield f"holds personal data ({kind})", "delete it, or invent another scene"


def _secrets(text: str) -> list[str]:
    from detect_secrets.core.scan import scan_line
    from detect_secrets.settings import get_settings

    settings = get_settings()
    if set(settings.plugins) != set(_PLUGINS):
        settings.clear()
        settings.configure_plugins([{"name": name} for name in _PLUGINS])
    # Or a comment beside a secret, "pragma: allowlist secret", would let it pass.
    settings.disable_filters("detect_secrets.filters.allowlist.is_line_allowlisted")
    kinds = {found.type for line in text.splitlines() for found in scan_line(line)}
    return sorted(kinds | ({"API key"} if _KEYS.search(text) else set()))


def _personal(text: str) -> Iterator[str]:
    if _MAIL.search(text):
        yield "an e-mail address"
    if _SSN.search(text):
        yield "a social security number"
    if any(_is_iban(match[0]) for match in _IBAN.finditer(text)):
        yield "a bank account"
    elif any(_luhn(match[0]) for match in _CARD.finditer(text)):
        yield "a card number"
    elif any(character.isdigit() for character in text) and _has_phone(text):
        yield "a telephone number"


def _has_phone(text: str) -> bool:
    from phonenumbers import PhoneNumberMatcher

    return (
        PhoneNumberMatcher(text, None).has_next()
        or PhoneNumberMatcher(text, "US").has_next()
        or any(
            match[0] not in "0123456789" and PhoneNumberMatcher(match[0], region).has_next()
            for region, shape in _PHONES.items()
            for match in shape.finditer(text)
        )
    )


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in number if digit.isdigit()][::-1]
    return sum(digits[::2]) % 10 == -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10


def _is_iban(account: str) -> bool:
    text = account.replace(" ", "").upper()
    length = _IBAN_LENGTHS.get(text[:2], 0)
    if not length and account != account.upper():
        return False  # words of prose, with a number between them
    text = text[: length or None]  # what follows may be the next word
    return len(text) >= length and int("".join(str(int(letter, 36)) for letter in text[4:] + text[:4])) % 97 == 1


@cache
def _names() -> re.Pattern[str]:
    table: Any = read_yaml(Path(__file__).with_name("forbidden.yaml"))

    def either(rows: list[str]) -> str:
        names = [_normal(name.strip()) for row in rows for name in row.split(", ")]
        return "|".join(re.escape(name).replace(r"\ ", "[ -]") for name in sorted(names, key=len, reverse=True))

    artists, common, songs, ambiguous, phrases, credits = (
        either(table[kind]) for kind in ("names", "common", "songs", "ambiguous", "phrases", "credits")
    )
    # Titles are common phrases but for their capitals; so are ambiguous names, after any phrase.
    return re.compile(
        rf"(?<!\w)(?:(?i:{artists})|{common}|{songs}|(?i:(?:{credits}) (?:the )?(?:{common}))"
        rf"|(?i:{phrases}|{credits}) (?:(?i:the) )?(?:{ambiguous}))(?!\w)"
    )
