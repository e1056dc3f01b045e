import pytest
from pydantic import ValidationError

from muonlab.studies.checkpoints.config import Images, Inspect, Texts, read

DIGEST = "0" * 64
GROUP = {"name": "g", "checkpoints": [{"path": "a.pt", "sha256": DIGEST}]}
IMAGES = {"kind": "images", "source": "digits"}


def refused(message, **fields):
    with pytest.raises(ValidationError, match=message):
        read({"groups": [GROUP], "data": IMAGES} | fields)


def test_a_config_is_itself_again():
    config = Inspect.model_validate({"groups": [GROUP], "data": IMAGES, "measures": ["rank"]})
    assert read(config.model_dump(mode="json")) == config
    assert (config.study, config.results_version) == ("inspect", 1)


def test_the_kind_of_data_is_told_by_its_name():
    assert isinstance(read({"groups": [GROUP], "data": IMAGES}).data, Images)
    texts = {"kind": "text", "source": "documentation", "examples": "packages"}
    assert isinstance(read({"groups": [GROUP], "data": texts}).data, Texts)


def test_what_does_not_fit_together_is_refused():
    refused("groups has 'g' twice", groups=[GROUP, GROUP])
    refused("measures has 'rank' twice", measures=["rank", "rank"])
    refused("needs transfer_source", measures=["transfer"])
    refused("which need examples", data={"kind": "text", "source": "documentation"})
    refused("there is no text", data={"kind": "text"}, measures=["rank"])
    refused("give examples, too", data={"kind": "text", "source": "a", "examples_test": "b"}, measures=["rank"])
    refused("mean and deviation go together", data=IMAGES | {"mean": [0.5]})
    refused("mean has 1 numbers and deviation 3", data=IMAGES | {"mean": [0.5], "deviation": [1, 1, 1]})
    refused("sha256", groups=[GROUP | {"checkpoints": [{"path": "a", "sha256": "12"}]}])
    refused("at least 1 item", groups=[])
    refused("pool", groups=[GROUP | {"pool": "max"}])
