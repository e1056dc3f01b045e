"""The presets of the feature study: settings as a user types them; what is left out has its default."""

from muonlab.study.settings import Settings, written

# Four rates, each about three times the last; the search goes on where the best lies on an edge.
EVERYTHING = written(
    """
    families=cnn,vit,gpt optimizers=muon,adamw,sgd seeds=5 search_seeds=2 extensions=3 matched=schedules
    muon.rates=0.001,0.003,0.01,0.03 adamw.rates=0.001,0.003,0.01,0.03 sgd.rates=0.01,0.03,0.1,0.3
    """
)
EMBEDDED = written(
    """
    images=digits text=sources transfer_text=documentation examples=packages
    """
)

TINY = written(
    """
    families=cnn,gpt optimizers=muon,adamw seeds=2 search_seeds=1 extensions=0 matched=checkpoints
    budget=12 looks=4 batch=16
    muon.rates=0.003,0.01 adamw.rates=0.003,0.01
    transfer.budget=6 transfer.looks=2 transfer.batch=16
    cnn.width=8 cnn.depths=1,1 cnn.groups=4
    gpt.depth=2 gpt.width=16 gpt.heads=2
    text.length=24 text.limit=60000 text.transfer_limit=30000 text.per_class=60
    measure.examples=40 measure.probe_train=120 measure.probe_validation=60 measure.path_examples=20
    """
)
LAPTOP = written(
    """
    batch=32 budget=240 looks=12
    gpt.batch=16 gpt.budget=300 gpt.depth=2 gpt.width=64 gpt.heads=4
    transfer.budget=45 transfer.looks=6 transfer.batch=16
    images.transfer_per_class=30
    cnn.width=16 cnn.depths=1,1,1
    vit.depth=3 vit.width=48 vit.heads=3 vit.patch=2
    text.length=48 text.limit=1000000 text.transfer_limit=300000 text.per_class=200
    measure.examples=150 measure.probe_train=800 measure.probe_validation=300 measure.path_examples=60
    """
)
REAL = written(
    """
    batch=32 budget=240 looks=12
    gpt.batch=16 gpt.budget=400 gpt.depth=3 gpt.width=64 gpt.heads=4
    transfer.budget=50 transfer.looks=6 transfer.batch=16
    images.per_class=1500 images.test_per_class=200 images.transfer_per_class=50
    cnn.width=16 cnn.depths=1,1,1
    vit.depth=4 vit.width=64 vit.heads=4 vit.patch=4
    text.length=64 text.limit=3000000 text.transfer_limit=600000
    measure.examples=100 measure.probe_train=1000 measure.probe_validation=300 measure.path_examples=30
    """
)
# The sizes that the paper names: ViT-S, a ResNet, GPT-2 small. What it does not state is ours.
PAPER = written(
    """
    batch=256 budget=20000 looks=20
    transfer.budget=2000 transfer.looks=10 transfer.batch=128
    images.size=224
    cnn.width=64 cnn.depths=2,2,2,2 cnn.norm=batch
    vit.depth=12 vit.width=384 vit.heads=6 vit.patch=16 vit.pooling=class
    gpt.depth=12 gpt.width=768 gpt.heads=12 gpt.norm=layer gpt.positions=learned gpt.feed_forward=gelu_tanh
    gpt.bias=true
    text.length=1024
    measure.examples=5000 measure.probe_train=20000 measure.probe_validation=5000 measure.path_examples=500
    """
)

PRESETS: dict[str, Settings] = {
    "tiny": EVERYTHING | EMBEDDED | TINY,
    "laptop": EVERYTHING | EMBEDDED | LAPTOP,
    "real": EVERYTHING | REAL,
    "paper": EVERYTHING | PAPER,
}
