"""The presets of the study of components: settings as a user types them; what is left out has its default."""

from muonlab.studies.components.cases import VARIATIONS
from muonlab.study.settings import Settings, written

# As many rates for every optimizer, each about three times the last; the search goes on where the best lies on an edge.
EVERYTHING = {"variations": list(VARIATIONS)} | written(
    """
    optimizers=muon,adamw,sgd extensions=2 eps=1,0.5,0.2,0.1,0.05,0.02 squared_eps=0.3,0.2,0.15,0.1,0.08,0.06
    main_eps=0.5 agree_steps=40,80,160,320
    muon.rates=0.01,0.03,0.1,0.3 adamw.rates=0.003,0.01,0.03,0.1 sgd.rates=0.1,0.3,1,3
    """
)

TINY = written(
    """
    extensions=0 eps=1,0.5 squared_eps=0.35,0.25 variations=aligned,spurious agree_steps=10,20 ratio=2,8 noise=0.1
    depth=0 classes=4 dimension=8 train=64 validation=64 test=64 seeds=4 search_seeds=1 budget=60 looks=20
    muon.rates=0.03,0.1 adamw.rates=0.03,0.1 sgd.rates=0.1,0.3
    """
)
LAPTOP = written(
    """
    ratio=1,2,4,8,16 noise=0,0.1,0.3 depth=0,1 seeds=6 search_seeds=2 budget=600 looks=80
    """
)
FULL = written(
    """
    ratio=1,1.5,2,4,8,16,32 noise=0,0.05,0.1,0.2,0.3 depth=0,1,2 seeds=10 search_seeds=3 budget=2000 looks=120
    """
)

PRESETS: dict[str, Settings] = {
    "tiny": EVERYTHING | TINY,
    "laptop": EVERYTHING | LAPTOP,
    "full": EVERYTHING | FULL,
}
