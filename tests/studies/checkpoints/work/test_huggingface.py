"""Folders of Hugging Face's: measured as the package itself would, and never run as code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from muonlab.data.sources import DataError
from muonlab.studies.checkpoints.config import Texts
from muonlab.studies.checkpoints.plan import Named, plan
from muonlab.studies.checkpoints.work import huggingface
from muonlab.studies.checkpoints.work.checkpoints import describe
from muonlab.studies.checkpoints.work.job import candidates
from muonlab.study.settings import UsageError
from studies.checkpoints.conftest import asked, group

transformers = pytest.importorskip("transformers", reason="transformers, of the extra hf, is not installed")
WORDS = ("plus", "minus", "yes", "no", "and", "then", "red", "old", "cat", "dog")


@pytest.fixture
def gpt(tmp_path):
    """A function that writes a tiny GPT-2 with a tokenizer of words, and returns its folder."""

    def make(name="gpt", seed=0):
        torch.manual_seed(seed)
        config = transformers.GPT2Config(
            vocab_size=len(WORDS) + 1, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
        )
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
        words = {"[UNK]": 0, **{word: k + 1 for k, word in enumerate(WORDS)}}
        model = {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}
        whole = {"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": []}
        rest = {"truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(whole | rest))
        return tmp_path / name

    return make


@pytest.fixture
def vit(tmp_path):
    """The folder of a tiny ViT of three classes for images of 8 x 8 in grey."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, num_labels=3, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    settings = {"do_normalize": True, "image_mean": [0.25], "image_std": [0.5], "size": {"height": 8, "width": 8}}
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(settings))
    return tmp_path / "vit"


@pytest.fixture
def texts(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "text.txt").write_text(" ".join(rng.choice(WORDS[2:], 3000)))
    lines = [f"{('plus', 'minus')[k % 2]} {' '.join(rng.choice(WORDS, 3 + k % 9))}" for k in range(120)]
    (tmp_path / "examples.txt").write_text("\n".join(lines) + "\n")
    return Texts(source=str(tmp_path / "text.txt"), examples=str(tmp_path / "examples.txt"), length=8)


def test_a_gpt_is_measured_with_the_tokenizer_of_its_folder_and_padding_changes_no_hidden_state(
    gpt, texts, inspect, little
):
    folder = gpt()
    own = {"data": texts, "measures": ("robustness", "rank"), "measuring": little}
    found = inspect(group("gpt", folder), **own)
    assert (found["groups"][0]["net"], found["kind"]) == ("GPT2LMHeadModel", "tokens")
    assert found["groups"][0]["taps"] == ["transformer.h.0", "transformer.h.1"]
    assert any(f"tokens of {folder}/tokenizer.json, 11 ids" in note for note in found["notes"])
    (row,) = found["models"]
    # The same by the package itself: next tokens of the test text, which is cut into windows of 8.
    net = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = {word: k + 1 for k, word in enumerate(WORDS)}
    whole = Path(texts.source).read_text()
    tokens = torch.tensor([ids.get(word, 0) for word in whole[-round(0.1 * len(whole)) :].split()])
    windows = tokens.unfold(0, 9, 8)[: little.examples]
    with torch.no_grad():
        logits = net(windows[:, :-1]).logits
    assert len(row["clean_by_example"]) == len(windows)
    assert row["clean_accuracy"] == pytest.approx((logits.argmax(-1) == windows[:, 1:]).double().mean().item())
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert row["clean_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert found["controls"]["untrained"]["num_examples"] == len(windows)
    # Ranks are those of the last token of each labelled text, by the package itself, one text at a time.
    sets = candidates(asked(group("gpt", folder), **own), [])[0].given.probed.test.first(little.examples)
    with torch.no_grad():
        states = [net(line[line != 11][None], output_hidden_states=True).hidden_states for line in sets.inputs]
    energy = torch.linalg.svdvals(torch.cat([each[1][:, -1] for each in states]).double()).square()
    expected = torch.special.entr(energy / energy.sum()).sum().exp().item()  # of the first block
    assert row["layers"][0]["raw"]["effective_rank"] == pytest.approx(expected, rel=1e-5)


def test_a_vit_is_measured_as_its_folder_says(vit, images, inspect):
    def measured(into, measures=("rank",), **fields):
        data = images.model_copy(update=fields)
        return inspect(group("vit", vit), data=data, measures=measures, into=into)

    found = measured("folder")
    assert found["groups"][0]["taps"] == ["vit.layers.0", "vit.layers.1"]
    assert any("standardised as" in note for note in found["notes"])
    assert measured("given", mean=(0.25,), deviation=(0.5,))["models"] == found["models"]
    with pytest.raises(DataError, match=r"vit: the net has 3 outputs and the data 4 classes \(0, 1, 2, 3\)"):
        measured("four", ("robustness",), classes=("0", "1", "2", "3"))
    for held in ({"do_normalize": False, "image_mean": [0.5], "image_std": [0.5]}, {"image_mean": [0.5]}, None):
        place = vit / "preprocessor_config.json"
        place.unlink() if held is None else place.write_text(json.dumps(held))
        assert huggingface.levels(vit) is None


def test_data_that_do_not_fit_say_what_was_raised(gpt, images, texts, inspect):
    own = group("g", gpt())
    with pytest.raises(DataError, match=r"g: the net does not take images \(2, 1, 8, 8\); it raised \w+Error: [^\n]+$"):
        inspect(own)
    with pytest.raises(DataError, match=r"g: the net has 11 tokens and the tokenizer 256|does not take token ids"):
        inspect(own, data=texts.model_copy(update={"tokenizer": "bytes"}))


def test_a_folder_with_weights_in_a_pickle_is_read_without_its_code(gpt):
    folder = gpt()
    net = huggingface.load(folder)
    (folder / "model.safetensors").unlink()
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    assert all(map(torch.equal, huggingface.load(folder).parameters(), net.parameters()))
    torch.save(net, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"gpt: its .bin files hold more than tensors and plain values; code in them"):
        huggingface.load(folder)


def test_code_of_a_folder_is_never_run(gpt, tmp_path):
    folder = gpt()
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\nclass Config: pass\n")
    with pytest.raises(DataError, match=r"an architecture that transformers .* does not know without code of the fold"):
        huggingface.load(folder)
    assert not (tmp_path / "made").exists()


def test_a_model_without_its_head_is_refused(vit):
    headless = vit.parent / "headless"
    transformers.ViTModel(transformers.ViTConfig.from_pretrained(vit)).save_pretrained(headless)
    (headless / "config.json").write_text((vit / "config.json").read_text())
    with pytest.raises(DataError, match=r"its weights lack .*classifier.bias, classifier.weight"):
        huggingface.load(headless)


def test_folders_of_two_tokenizers_need_one_to_be_given(gpt, texts, inspect):
    first, second = gpt("a"), gpt("b", seed=1)
    same = {"data": texts, "measures": ("rank",)}
    assert len(inspect(group("a", first), group("b", second), **same)["models"]) == 2
    tokenizer = second / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"cat": 9', '"cow": 9'))
    with pytest.raises(DataError, match=r"tokenizer.json and that of another folder differ; give tokenizer=PATH"):
        inspect(group("a", first), group("b", second), into="other", **same)


def test_a_base_model_is_measured_where_no_head_is_needed(vit, images, inspect, little):
    base = vit.parent / "base"
    transformers.ViTModel(transformers.ViTConfig.from_pretrained(vit)).save_pretrained(base)
    found = inspect(group("base", base), measures=("margins", "rank"), measuring=little)
    (row,) = found["models"]
    assert "clean_accuracy" not in row
    assert len(row["layers"]) == 2
    assert "untrained" not in found["controls"]
    with pytest.raises(DataError, match=r"the net returned a .*expected logits .*measures=margins,rank"):
        inspect(group("base", base), into="judged")


def test_a_net_without_a_head_leaves_robustness_out_unless_it_is_asked_for(vit):
    base = vit.parent / "base"
    transformers.ViTModel(transformers.ViTConfig.from_pretrained(vit)).save_pretrained(base)
    named = [Named("a", (str(base),))]
    assert plan(named, {"data": "digits"}, describe).job.measures == ("margins", "rank")
    with pytest.raises(
        UsageError, match=r"robustness, which needs answers, and .*base has no head .*measures=margins,rank"
    ):
        plan(named, {"data": "digits", "measures": "robustness"}, describe)


# Bug: accuracy of the next token was measured, of a net that sees it.
def test_a_net_that_fills_in_masked_tokens_is_not_asked_for_the_next(gpt, texts, inspect, little):
    folder = gpt()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    net = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=11, max_position_embeddings=16, **sizes))
    net.save_pretrained(folder)
    own = {"data": texts, "measuring": little}
    with pytest.raises(DataError, match=r"its answers depend on later tokens.* Give measures=margins,rank"):
        inspect(group("bert", folder), **own)
    (row,) = inspect(group("bert", folder), measures=("rank",), into="ranks", **own)["models"]
    assert len(row["layers"]) == 2


def test_grey_images_are_repeated_for_a_net_of_colours_and_that_is_said(tmp_path, images, inspect, little):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.ViTConfig(image_size=8, patch_size=4, num_labels=3, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "rgb")
    found = inspect(group("rgb", tmp_path / "rgb"), measures=("rank",), measuring=little)
    assert "rgb: images have 3 channels, as its net takes them" in found["notes"]


def test_whole_numbers_of_a_folder_are_not_weights(vit):
    held = load_file(vit / "model.safetensors")
    name = next(name for name in held if name.endswith(("dense.weight", "fc1.weight")))
    save_file({**held, name: held[name].round().to(torch.int8)}, vit / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"is I8; whole numbers without a scale are not weights"):
        huggingface.load(vit)


# Bug: "Could not import module", and no word of torchvision.
def test_what_an_import_fails_for_is_named():
    try:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as cause:
            raise ModuleNotFoundError("Could not import module 'ViT'") from cause
    except ModuleNotFoundError as error:
        said = huggingface.why(error)
    assert said.startswith(
        "RuntimeError: operator torchvision::nms does not exist: the torchvision that is installed is"
    )
    assert "pip uninstall torchvision" in said
