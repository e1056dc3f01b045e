import json

import pytest

import synthetic_inspection as synthetic
from muonlab.jobs.files import StudyError
from muonlab.studies.checkpoints.config import StudyData, Texts
from muonlab.studies.checkpoints.readings import Inspected, read


def test_what_an_inspection_holds(pair):
    assert (pair.first, pair.rivals, pair.data) == ("A", ("B",), "digits")
    assert {name: len(nets) for name, nets in pair.nets.items()} == {"A": 1, "B": 1}
    assert pair.has_one_each("B")
    assert pair.compared.of_examples
    assert pair.compared.places[0].chance == 0.2


def test_several_checkpoints_give_intervals_between_them(seeds):
    assert not seeds.compared.of_examples
    assert seeds.compared.spread == "95% intervals over checkpoints"


def roles(**colors):
    groups = tuple(synthetic.group(name, color=color) for name, color in colors.items())
    job = synthetic.asked(x=1).job.model_copy(update={"groups": groups})
    found = Inspected(job, {}, None)
    return [(found.series(name).role, found.series(name).style) for name in colors]


def test_groups_have_colours_of_their_own():
    assert roles(a=None, b=None) == [("muon", 0), ("adamw", 0)]
    assert roles(AdamW=None, mine=None, Muon=None) == [("adamw", 0), ("sgd", 0), ("muon", 0)]
    assert roles(a="#aa3377", b=None, c="sgd") == [("#aa3377", 0), ("muon", 0), ("sgd", 0)]


def test_with_many_groups_every_one_still_has_a_look_of_its_own():
    many = roles(**{f"g{k}": None for k in range(12)})
    assert len(set(many)) == 12


def test_names_of_data(pair):
    def name(data):
        return Inspected(pair.asked.model_copy(update={"data": data}), {}, None).data

    assert name(Texts(source="a/war.txt")) == "war"
    assert name(Texts(examples="b/labelled.tsv")) == "labelled"
    assert name(Texts(source="cifar10/train.zip")) == "cifar10"


def test_an_inspection_that_is_not_done(tmp_path):
    what = synthetic.asked(A=1)
    synthetic.inspection.begin(what, tmp_path)
    found = read(tmp_path)
    assert (found.nets, found.result, found.record) == ({}, {}, None)


def test_a_study_json_of_another_kind_is_said(tmp_path):
    asked = {"study": "inspect", "preset": "none", "settings": {}, "config": {"groups": []}}
    (tmp_path / "study.json").write_text(json.dumps(asked))
    with pytest.raises(StudyError, match="is no inspection that this version of muonlab reads"):
        read(tmp_path)


def test_the_data_of_a_study_has_its_name(pair):
    family = synthetic.synthetic.study(families=["cnn"]).families[0].family
    job = pair.asked.model_copy(update={"data": StudyData(family=family)})
    assert Inspected(job, {}, None).data == "digits"
