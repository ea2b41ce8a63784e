"""How golden files of losses over pairs and triplets of a batch are replayed."""


def check_contrastive(golden, monkeypatch):
    from pytorch_metric_learning.losses import ContrastiveLoss

    embeddings = golden.leaf("embeddings")
    loss = ContrastiveLoss(golden.hyper["pos_margin"], golden.hyper["neg_margin"])(embeddings, golden["labels"])
    loss.backward()
    golden.compare("value", loss)
    golden.compare("grad_embeddings", embeddings.grad)


CHECKS = {"contrastive": check_contrastive}
