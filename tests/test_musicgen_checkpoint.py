"""Finding a checkpoint, preparing it once, and the musician over it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from emulators import gcs
from melodify_lib import stages
from melodify_lib.errors import CloudError, InputError, ModelError, PaidError, SettingsError
from melodify_lib.music.musicgen import open_backend
from melodify_lib.music.musicgen.checkpoint import Checkpoint, Tokenizer, Weights
from melodify_lib.music.musicgen.onnx import OnnxBackend, prepare
from melodify_lib.music.musicgen.torch_backend import encode_audio
from melodify_lib.nouns import MusicDescription, TrackCard, sha256
from melodify_lib.settings import Settings

DESCRIPTION = MusicDescription(
    description="A calm solo piano piece.", genre="jazz", bpm=90, key="D minor", moods=("calm",), instruments=("piano",)
)


@pytest.fixture
def folder(untrained: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(untrained["mono"], copy, ignore=shutil.ignore_patterns("onnx-*", ".preparing*"))
    return copy


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def find(name: str | Path, **settings: Any) -> Checkpoint:
    return Checkpoint.find(str(name), Settings(checkpoint=str(name), **settings))


def test_it_is_prepared_once_and_anew_when_the_weights_change(folder: Path) -> None:
    said: list[str] = []
    first = prepare(find(folder), on_progress=said.append)
    assert first.parent == folder and len(said) >= 4
    assert prepare(find(folder), on_progress=said.append) == first and said[-1] != "reading the checkpoint"
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    weights = load_file(folder / "model.safetensors")
    weights["decoder.lm_heads.0.weight"] *= 1.5  # of the same shape and size
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    second = prepare(find(folder))
    assert second != first and not first.exists()
    assert (second / "decoder.onnx.data").read_bytes() != before["decoder.onnx.data"]


def test_it_is_prepared_anew_when_the_recipe_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(find(folder))
    monkeypatch.setattr("melodify_lib.music.musicgen.onnx.recipe.fingerprint", lambda *_: "another")
    assert prepare(find(folder)) != first


def test_new_times_on_the_same_bytes_make_nothing_anew(folder: Path) -> None:
    first = prepare(find(folder))
    written = (first / "decoder.onnx").stat().st_mtime_ns
    os.utime(folder / "model.safetensors")
    said: list[str] = []
    assert prepare(find(folder), on_progress=said.append) == first and said == ["reading the checkpoint"]
    assert (first / "decoder.onnx").stat().st_mtime_ns == written
    assert prepare(find(folder), on_progress=said.append) == first and len(said) == 1


def test_the_same_checkpoint_gives_the_same_graphs(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other")
    one, other = prepare(find(folder)), prepare(find(tmp_path / "other"))
    assert one.name == other.name
    for path in one.iterdir():
        if path.name not in ("prepared.json", "scales.npz"):
            assert path.read_bytes() == (other / path.name).read_bytes(), path.name


def test_several_may_prepare_at_once(folder: Path) -> None:
    code = (
        "import sys; from melodify_lib.settings import Settings\n"
        "from melodify_lib.music.musicgen.checkpoint import Checkpoint\n"
        "from melodify_lib.music.musicgen.onnx import prepare, OnnxBackend\n"
        "OnnxBackend(prepare(Checkpoint.find(sys.argv[1], Settings()))); print('loaded')"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in processes] == ["loaded"] * 3
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1


def test_what_a_killed_process_left_is_cleared_and_what_is_not_ours_stays(folder: Path) -> None:
    (folder / ".preparing-killed").mkdir()
    (folder / "onnx-export").mkdir()
    (folder / "onnx-export" / "model.onnx").write_bytes(b"somebody's own")
    OnnxBackend(prepare(find(folder)))
    assert not (folder / ".preparing-killed").exists()
    assert (folder / "onnx-export" / "model.onnx").read_bytes() == b"somebody's own"


def test_a_process_killed_while_it_prepares(folder: Path) -> None:
    code = (
        "import os, signal, sys; from melodify_lib.settings import Settings\n"
        "from melodify_lib.music.musicgen.checkpoint import Checkpoint\n"
        "from melodify_lib.music.musicgen.onnx import prepare\n"
        "kill = lambda said: said == 'writing the decoder' and os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare(Checkpoint.find(sys.argv[1], Settings()), on_progress=kill)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == -9
    assert len(list(folder.glob(".preparing-*/"))) == 1 and not list(folder.glob("onnx-*"))
    OnnxBackend(prepare(find(folder)))
    assert not list(folder.glob(".preparing-*/"))


def test_where_the_folder_cannot_be_written_the_users_cache_is_taken(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and access(path, mode))  # root may all
    made = prepare(find(folder))
    assert made.is_relative_to(tmp_path / "cache")
    assert prepare(find(folder)) == made


def test_read_only_checkpoints_of_one_name_do_not_share_a_place(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "elsewhere" / "checkpoint"
    shutil.copytree(folder, other)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) not in (folder, other) and access(path, mode))
    made = [prepare(find(folder)), prepare(find(other))]
    assert made[0] != made[1] and all((place / "decoder.onnx").exists() for place in made)


def test_damaged_graphs_are_an_error_that_says_what_to_do(folder: Path) -> None:
    made = prepare(find(folder))
    (made / "decoder.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"cannot be loaded .* remove .* and it is made again"):
        OnnxBackend(made)
    shutil.rmtree(made)
    OnnxBackend(prepare(find(folder)))
    (prepare(find(folder)) / "architecture.json").write_text("{}")
    with pytest.raises(ModelError, match="is damaged"):
        OnnxBackend(made)


def test_a_full_disk_leaves_no_half_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("melodify_lib.music.musicgen.onnx.graph.Graph.save", full)
    with pytest.raises(ModelError, match="No space left"):
        prepare(find(folder))
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_weights_in_16_bits_and_in_shards_are_read_alike(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    sharded = tmp_path / "sharded"
    shutil.copytree(folder, sharded)
    (sharded / "model.safetensors").unlink()
    halves = {name: value.bfloat16() for name, value in weights.items()}
    names = sorted(halves)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: halves[name].contiguous() for name in part}, sharded / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in shards.items() for name in part}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    name = "decoder.lm_heads.0.weight"
    np.testing.assert_array_equal(Weights(sharded)[name], halves[name].float().numpy())
    for precision in ("int8", "float32"):
        open_backend(find(sharded), Settings(precision=precision))


def test_the_old_form_of_weight_norm_gives_the_same_sound(folder: Path, tmp_path: Path) -> None:
    """As in the checkpoints on the hub, which are older than torch's parametrizations."""
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    weights = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in weights.items()
    }
    assert renamed.keys() != weights.keys()
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    name = "audio_encoder.decoder.layers.0.conv"
    np.testing.assert_array_equal(Weights(old).weight_norm(name), Weights(folder).weight_norm(name))


BROKEN = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"has no \*.safetensors"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json cannot be read"),
    "another model": (
        lambda folder: (folder / "config.json").write_text('{"model_type": "musicgen_melody"}'),
        "'musicgen_melody' model; only 'musicgen' is known",
    ),
    "weights cut off": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000]),
        r"cannot be (read|loaded)",
    ),
    "tokenizer is no JSON": (
        lambda folder: (folder / "tokenizer.json").write_text("{"),
        "tokenizer.json cannot be read",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_broken_checkpoint_is_named(folder: Path, name: str, precision: str) -> None:
    damage, message = BROKEN[name]
    damage(folder)
    with pytest.raises(ModelError, match=message):
        open_backend(find(folder), Settings(precision=precision))
    assert not list(folder.glob("onnx-*")) and not list(folder.glob(".preparing-*"))


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_missing_tensors_are_named(folder: Path, precision: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.model.decoder.layers.1.fc2.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has no weights .*layers\.1\.fc2\.weight"):
        open_backend(find(folder), Settings(precision=precision))


def test_without_the_weights_the_command_and_the_folder_are_named(tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads its settings on import."""
    code = (
        "from melodify_lib.settings import Settings; from melodify_lib.music.musicgen import from_settings\n"
        "from melodify_lib.errors import ModelError\n"
        "try: from_settings(Settings())\n"
        "except ModelError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "hf download facebook/musicgen-small" in run.stdout
    assert str(tmp_path / "hub" / "models--facebook--musicgen-small") in run.stdout
    assert "MELODIFY_CHECKPOINT=" in run.stdout


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "musicgen-small", "a/b/c"])
def test_a_name_that_leads_nowhere(name: str) -> None:
    with pytest.raises(ModelError, match=r"expected one with config\.json"):
        find(name)


def test_a_precision_that_the_device_has_not(folder: Path) -> None:
    for choice in ({"precision": "int4"}, {"precision": "bfloat16"}, {"device": "tpu"}, {"device": "cuda"}):
        with pytest.raises(SettingsError, match="cpu: int8, float16, float32; cuda: float16, bfloat16, float32"):
            open_backend(find(folder), Settings(**choice))
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="finds no GPU"):
            open_backend(find(folder), Settings(device="cuda", precision="float16"))


HOSTILE: dict[str, Any] = {
    "decoder.num_attention_heads": 0,
    "decoder.num_hidden_layers": 0,
    "decoder.audio_channels": 3,
    "decoder.max_position_embeddings": 4,
    "decoder.vocab_size": "many",
    "decoder.scale_embedding": True,
    "decoder.pad_token_id": None,
    "decoder.activation_function": "relu",
    "audio_encoder.sampling_rate": 0,
    "audio_encoder.upsampling_ratios": [8, 0, 4, 4],
    "audio_encoder.use_causal_conv": True,
    "audio_encoder.normalize": True,
    "text_encoder.relative_attention_num_buckets": 0,
    "text_encoder.feed_forward_proj": "gated-gelu",
    "text_encoder.model_type": "bert",
}


@pytest.mark.parametrize("field", HOSTILE)
@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_config_that_cannot_be_played_is_refused(folder: Path, field: str, precision: str) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    part, name = field.split(".")
    config[part][name] = HOSTILE[field]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        open_backend(find(folder), Settings(precision=precision))


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_a_config_with_fewer_layers_than_the_weights_is_refused(folder: Path, precision: str) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    config["decoder"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"config\.json"):
        open_backend(find(folder), Settings(precision=precision))


def test_weights_that_are_no_numbers_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["decoder.model.decoder.layers.0.self_attn.k_proj.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="give no numbers"):
        prepare(find(folder))


def test_a_part_of_a_checkpoint_in_the_hubs_cache_is_not_taken_for_all(tmp_path: Path, folder: Path) -> None:
    """Whole: played, without a network. With a shard or all weights missing: the download is named."""
    hub = tmp_path / "hub" / "models--some--model"
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("0" * 40)
    snapshot = hub / "snapshots" / ("0" * 40)
    (hub / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in folder.iterdir() if path.is_file())):
        shutil.copy(path, hub / "blobs" / str(number))
        (snapshot / path.name).symlink_to(hub / "blobs" / str(number))
    code = (
        "from melodify_lib.settings import Settings; from melodify_lib.music.musicgen import from_settings\n"
        "from melodify_lib.errors import ModelError\n"
        "try: from_settings(Settings(checkpoint='some/model')).close(); print('loaded')\n"
        "except ModelError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}

    def run() -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run() == "loaded"
    weights = snapshot / "model.safetensors"
    weights.resolve().unlink()  # a link to nowhere
    assert "hf download some/model" in run()
    weights.unlink()
    assert "hf download some/model" in run()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with gcs.gcs() as url:
        yield url


def test_a_checkpoint_from_a_bucket(folder: Path, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Vertex AI hands to a container as AIP_STORAGE_URI."""
    settings: dict[str, Any] = {
        "allow_paid": True,
        "project": "melodify",
        "gcs_base_url": bucket,
        "access_token": "anybody",
    }
    address = f"gs://{gcs.BUCKET}/models/tiny"
    with pytest.raises(PaidError):
        find(address)
    with pytest.raises(CloudError, match=f"nothing under {address}"):
        find(address, **settings)
    with closing(gcs.client(bucket)) as client:
        for path in folder.iterdir():
            client.bucket(gcs.BUCKET).blob(f"models/tiny/{path.name}").upload_from_filename(path)
        fetched = find(address, **settings)
        assert fetched.folder.is_relative_to(tmp_path / "cache") and fetched.digest == find(folder).digest
        made = prepare(fetched)
        from google.cloud.storage import Blob

        downloads: list[str] = []
        download = Blob.download_to_filename
        monkeypatch.setattr(
            Blob,
            "download_to_filename",
            lambda self, *rest, **more: (downloads.append(self.name), download(self, *rest, **more)),
        )
        assert prepare(find(address, **settings)) == made and not downloads
        tiny = client.bucket(gcs.BUCKET)
        tiny.blob("models/tiny/generation_config.json").upload_from_string("{}")
        tiny.blob("models/tiny/state_dict.bin").upload_from_string("not asked for")
        find(address, **settings)
        assert downloads == ["models/tiny/generation_config.json"]
        tiny.blob("models/tiny/model-00001-of-00001.safetensors").upload_from_filename(folder / "model.safetensors")
        tiny.blob("models/tiny/model.safetensors").delete()
        again = find(address, **settings)
        assert [path.name for path in again.folder.glob("*.safetensors")] == ["model-00001-of-00001.safetensors"]


def test_threads_that_fetch_at_once_all_get_whole_files(folder: Path, bucket: str) -> None:
    settings = {"allow_paid": True, "project": "melodify", "gcs_base_url": bucket, "access_token": "anybody"}
    with closing(gcs.client(bucket)) as client:
        for path in folder.iterdir():
            client.bucket(gcs.BUCKET).blob(f"models/other/{path.name}").upload_from_filename(path)
    digest = find(folder).digest
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: find(f"gs://{gcs.BUCKET}/models/other", **settings), range(4)))
    assert {checkpoint.digest for checkpoint in found} == {digest}


def test_the_tokenizer_reads_as_transformers_does(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for prompt in (DESCRIPTION.to_prompt(), "piano", "日本の雨 🎹"):
        assert Tokenizer(folder).encode(prompt).tolist() == theirs(prompt)["input_ids"]


def test_audio_to_go_on_from(folder: Path) -> None:
    checkpoint = find(folder)
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 44100)).astype(np.float32)
    assert encode_audio(checkpoint, noise, 44100).shape == (4, 50)
    for audio, message in (
        (noise[0], "floats"),
        (noise * np.nan, "floats"),
        (noise[:, :100], "640 samples"),
    ):
        with pytest.raises(InputError, match=message):
            encode_audio(checkpoint, audio, 44100)


@pytest.mark.parametrize("name", ["mono", "stereo"])
def test_the_musician_makes_a_track_with_its_card(untrained: dict[str, Path], name: str, tmp_path: Path) -> None:
    settings = Settings(musician="musicgen", checkpoint=str(untrained[name]))
    musician = stages.musician(settings)
    track = musician.play(DESCRIPTION, 6, 3)
    card = track.card
    assert card.licence == "unknown" and card.permitted_use == "non-commercial"
    assert card.musician.name == "musicgen"
    assert re.fullmatch(
        rf"[0-9a-f]{{12}}\+int8\+{name}@[0-9a-f]{{12}}", card.musician.version
    )  # no path of this machine
    assert card.measured.duration_s == pytest.approx(6, abs=0.02)
    assert card.measured.loudness_lufs == pytest.approx(-14, abs=1)
    assert card.measured.true_peak_dbtp is not None and card.measured.true_peak_dbtp <= -0.9
    track.save(tmp_path)
    audio, rate = soundfile.read(tmp_path / "track.wav")
    assert rate == 32000 and audio.reshape(len(audio), -1).shape == (192000, {"mono": 1, "stereo": 2}[name])
    again = stages.musician(settings).play(DESCRIPTION, 6, 3)
    assert again.files == track.files and again.card == card
    assert (
        sha256(track.files["track.wav"])
        == TrackCard.from_json((tmp_path / "card.json").read_bytes()).files["track.wav"]
    )
    assert not np.array_equal(soundfile.read(io.BytesIO(musician.play(DESCRIPTION, 6, 4).files["track.wav"]))[0], audio)


def test_the_licence_of_the_models_card_is_on_the_track(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    card = stages.musician(Settings(musician="musicgen", checkpoint=str(folder))).play(DESCRIPTION, 4, 0).card
    assert (card.licence, card.permitted_use) == ("apache-2.0", "any")
    for matter, licence in (
        ("license:\n- cc-by-nc-4.0", "cc-by-nc-4.0"),
        ("license: other", "other"),
        ("a: b", "unknown"),
    ):
        (folder / "README.md").write_text(f"---\n{matter}\n---\n")
        with closing(stages.musician(Settings(musician="musicgen", checkpoint=str(folder)))) as musician:  # type: ignore[type-var]
            assert (musician.licence, musician.permitted_use) == (licence, "non-commercial")  # type: ignore[attr-defined]
    for text in ("# A model\n", "", "---\nlicense: [\n---\n"):
        (folder / "README.md").write_text(text)
        assert find(folder).licence == "unknown"
    (folder / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert find(folder).licence == "unknown"
    assert Checkpoint("facebook/musicgen-small", folder).licence == "CC-BY-NC-4.0"


def test_files_are_not_executable_and_readable_by_others(folder: Path) -> None:
    """A server that runs as another user must be able to read what was prepared at build time."""
    made = prepare(find(folder))
    assert stat.S_IMODE(made.stat().st_mode) & 0o055 == 0o055
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o044 == 0o044 for path in made.iterdir())


def test_threads_share_the_musicians_batch(untrained: dict[str, Path]) -> None:
    musician = stages.musician(Settings(musician="musicgen", checkpoint=str(untrained["mono"])))
    tracks: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: tracks.update({seed: musician.play(DESCRIPTION, 4, seed)}))  # type: ignore[misc]
        for seed in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for seed, track in tracks.items():
        assert track.files == musician.play(DESCRIPTION, 4, seed).files
    assert len(tracks) == 4
