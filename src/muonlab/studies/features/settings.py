"""The settings of a study of features, as `muonlab settings features` prints them."""

from dataclasses import replace
from typing import Any

from muonlab.studies.features.config import ImageData, Measuring, TextData, Training
from muonlab.studies.features.plan import NETS, OPTIMIZERS, STUDY
from muonlab.studies.features.presets import PRESETS
from muonlab.study.described import Sections, described, execution, in_presets, of_each, rows

MEANT_FOR = {
    "tiny": "seconds, for tests",
    "laptop": "data that every machine has, minutes on two cores",
    "real": "your files, hours on two cores",
    "paper": "the sizes of nets that the paper names, needs a GPU, not run yet: see --dry-run first",
}
CHOSEN = f"""
families [{", ".join(NETS)}]: nets: cnn and vit on images, gpt on text; a family is one with one set of data
net [package.module:function, or path/file.py:function]: nets of your own, in place of the families, or next to them
    where families is given too
optimizers [{", ".join(OPTIMIZERS)}]: or any of torch's protocol, lion=lion_pytorch:Lion; the first is compared with
    each of the others. A setting of one, such as adamw.weight_decay or muon.adamw_factor, may have several values:
    every combination of them is tried with all learning rates, and the best has the final runs
seeds [a whole number, 1 to 1000]: final runs of each optimizer, of pretraining and of every transfer
search_seeds [a whole number, 1 to 1000]: runs of each learning rate in a search; in fine-tuning at most seeds of them
muon.rates [numbers, two or more]: learning rates that a search begins with, for pretraining and fine-tuning alike; lr
    is another word for it
adamw.rates [numbers, two or more]: likewise
sgd.rates [numbers, two or more]: likewise
matched [schedules, checkpoints]: where two optimizers are compared at one clean validation loss: with schedules the
    one that ends lower trains again for fewer steps, until it ends where the other does; checkpoints reads both on the
    way to the common budget, at no cost, but at other parts of their schedules
extensions [a whole number, 0 to 20]: rates at most that a search adds one by one while the best lies on an edge
"""
DATA = """
images [digits, or paths] (yours): digits (scikit-learn's), or a folder or .zip of class folders, IDX files or their
    folder, a .npz; TRAIN+TEST names a test set in a file of its own; several make a family of each net with each
text [sources, documentation, or paths] (yours): sources (the standard library's), documentation (of Python), or a
    file of text to pretrain on; several make a family each
transfer_text [as text] (yours): a text to transfer to; one, or one for each of text
examples [packages, or paths] (yours): labelled texts to probe with and to transfer to: packages (which package a
    piece of the standard library is from), label-first lines, .csv, .tsv; one, or one for each of text
"""
IMAGES = """
size: pixels of a side: the shorter side is resized to it and the middle kept; by default as they are, of images of
    several sizes the smallest shorter side, at most 224. ViT needs a multiple of vit.patch
classes: names of the classes to pretrain on; by default the first half
transfer_classes: names of the classes to transfer to; by default the other half
per_class: images of a class outside of the test set; by default all
test_per_class: images of a class in the source's own test set; by default all
transfer_per_class: images of a class to fine-tune on: those of training alone where the test set is held out of the
    source, else with those of validation; by default all
validation: share of the images outside of the source's own test set that validates
test_share: share of the images that is the test set, where the source has none
"""
TEXTS = """
limit: bytes of text that are read; by default all
transfer_limit: bytes of transfer_text that are read; by default all
length: tokens of a window and of a labelled text
per_class: labelled texts of a class outside of the test set; by default all
test_per_class: labelled texts of a class in the source's own test set; by default all
text_column: of labelled texts in a table or in records, the column of texts; by default text
label_column: and that of labels; by default label. Columns without names are 1, 2, ...
tokenizer: bytes, or the path of a tokenizer.json; with GPT-2's 50,257 tokens the GPT of paper has 124 million
    parameters
"""
OF_TEXTS = ("kind", "name", "source", "transfer_source", "examples", "examples_test")
TRAINING = """
batch: examples of a step
budget: steps; of several, each is a case of its own, and all of one net and data count as one in a mean over cases
looks: evaluations after the first, closer together at the start; weights are kept at each of the final runs
warmup: share of the steps in which the learning rate rises linearly
schedule: of the learning rate after the warm-up; linear and cosine fall to 0
patience: evaluations without a better validation loss of any member after which fine-tuning ends; by default never
"""
HORIZONS = "; of several, each is a case of its own, and all of one net and data count as one in a mean over cases"
OF_NETS = """
cnn.width: channels of the first stage; each stage doubles them; of several, each is a case, as of budget
cnn.depths: residual blocks of each stage
cnn.norm: with batch, members train one after another
cnn.groups: of every group norm; they divide cnn.width
vit.patch: pixels of a patch's side
depth: blocks
vit.width: size of a hidden state, a multiple of vit.heads, and of 4 with sincos; several as of cnn
heads: attention heads
vit.pooling: what the head reads: the mean of all patches, or the class token
vit.positions: how positions are encoded; sincos is fixed
gpt.width: size of a hidden state, a multiple of gpt.heads, and of twice that with rope; several as of cnn
gpt.norm: norm before each layer and the head
gpt.positions: how positions are encoded
gpt.feed_forward: activation of the feed-forward layers
gpt.bias: biases in all blocks
gpt.tied: head and embedding are one matrix
"""
MEASURES = """
examples: test examples, at most, that are corrupted, and on which margins and ranks are measured
probe_train: examples, at most, that probes are fitted on
probe_validation: examples, at most, that their L2 strength is chosen by
path_examples: test examples, at most, on which every evaluation is measured, for effective robustness
path_severity: severity of the corruptions there
margin_severity: severity of the corruptions under which margins are measured
"""


def sections(study: Any = None) -> Sections:
    """Return the settings by heading."""
    images = described(ImageData, "images.", ("kind", "name", "source", "test"), IMAGES)
    of_families = [
        replace(each, default=f"as {each.key.partition('.')[2]}")
        for each in of_each(dict.fromkeys(NETS, Training), "patience", TRAINING)
    ]
    found = {
        "Where it starts and how it runs": execution(STUDY, MEANT_FOR),
        "What is compared": rows(CHOSEN),
        "Data": (*rows(DATA), *images, *described(TextData, "text.", OF_TEXTS, TEXTS)),
        "Training": (
            *described(Training, without=("patience",), words=TRAINING),
            *described(Training, "transfer.", words=TRAINING.replace(HORIZONS, "")),
        ),
        "Training of one family, which goes before that of all": of_families,
        "Optimizers": of_each(OPTIMIZERS, "name"),
        "Nets": of_each(NETS, "kind", OF_NETS),
        "Measures": described(Measuring, "measure.", words=MEASURES),
    }
    return in_presets(found, PRESETS)
