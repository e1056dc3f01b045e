from muonlab.report import labels as room


def labels(cells):
    return room.labels({cell.id: cell for cell in cells})


def test_cells_that_differ_by_optimizer_and_seeds_need_no_more(make_cell):
    cells = [make_cell(), make_cell(optimizer="adamw", seeds=(4,)), make_cell(task={"labels": "random"})]
    assert list(labels(cells).values()) == [
        "add softmax muon, seeds 0-2",
        "add softmax adamw, seed 4",
        "add softmax muon, random labels, seeds 0-2",
    ]


def test_what_varies_within_a_task_and_optimizer_is_named_and_nothing_else(make_cell):
    cells = [
        make_cell(hyper={"lr": 0.1}, net={"depth": 1}),
        make_cell(hyper={"lr": 0.2}, net={"depth": 2}),
        make_cell(optimizer="adamw", net={"depth": 2}),
    ]
    assert list(labels(cells).values()) == [
        "add softmax muon depth=1 lr=0.1, seeds 0-2",
        "add softmax muon depth=2 lr=0.2, seeds 0-2",
        "add softmax adamw, seeds 0-2",
    ]


def test_different_cells_have_different_labels(make_cell):
    cells = [make_cell(hyper={"lr": lr}, seeds=seeds) for lr in (0.1, 0.2) for seeds in ((0, 1), (2, 3))]
    assert len(set(labels(cells).values())) == len(cells)
