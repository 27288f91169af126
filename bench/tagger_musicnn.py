"""Tags of WAV files by the four networks that musicnn carries, as a line of JSON a file; run by `bench/taggers.py`.

Pons & Serra (2019), "musicnn: pre-trained convolutional neural networks for music audio tagging": two designs, each
trained on MagnaTagATune and on the Million Song Dataset. Mean over patches of 3 s, as its own `top_tags`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")

import librosa  # noqa: E402
import musicnn  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402
from musicnn import configuration, models  # noqa: E402

NETWORKS = {
    "MSD_musicnn": configuration.MSD_LABELS,
    "MSD_vgg": configuration.MSD_LABELS,
    "MTT_musicnn": configuration.MTT_LABELS,
    "MTT_vgg": configuration.MTT_LABELS,
}
PATCH = 187  # frames of 16 ms: 3 s


def main() -> None:
    tf.disable_eager_execution()
    sounds = {path: _patches(path) for path in sys.argv[1:]}
    tags = {path: {name: _likeliest(name, labels, patches) for name, labels in NETWORKS.items()}
            for path, patches in sounds.items()}  # fmt: skip
    for path, of in tags.items():
        print(json.dumps({"file": path, "tags": of}))


def _patches(path: str) -> np.ndarray:
    """Log mel spectrogram ``[patches, PATCH, 96]``, as musicnn's extractor makes it."""
    audio, rate = librosa.load(path, sr=16_000)
    mel = librosa.feature.melspectrogram(y=audio, sr=rate, hop_length=256, n_fft=512, n_mels=96).T
    logarithm = np.log10(10_000 * mel.astype(np.float16) + 1)
    return np.stack([logarithm[at : at + PATCH] for at in range(0, len(logarithm) - PATCH + 1, PATCH)])


_sessions: dict[str, tuple[tf.Session, list[tf.Tensor]]] = {}


def _likeliest(name: str, labels: list[str], patches: np.ndarray) -> list[str]:
    """All labels, the likeliest first."""
    if name not in _sessions:
        graph = tf.Graph()
        with graph.as_default():
            with tf.name_scope("model"):
                x = tf.placeholder(tf.float32, [None, PATCH, 96])
                training = tf.placeholder(tf.bool)
                likely = tf.nn.sigmoid(models.define_model(x, training, name, len(labels))[0])
            session = tf.Session(graph=graph)
            tf.train.Saver().restore(session, f"{Path(musicnn.__file__).parent}/{name}/")
        _sessions[name] = session, [x, training, likely]
    session, (x, training, likely) = _sessions[name]
    taggram = session.run(likely, {x: patches, training: False})
    return [labels[index] for index in np.argsort(-taggram.mean(axis=0))]


if __name__ == "__main__":
    main()
