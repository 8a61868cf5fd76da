"""Terms for thin structures that are added to the loss of any head."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn

from nnunetv2.training.loss.loss_config import TERMS, LabelTask, TermsConfig
from nnunetv2.training.loss.skeleton_recall import SkeletonRecallTerm
from nnunetv2.training.loss.soft_cldice import SoftClDiceTerm
from nnunetv2.training.loss.tubes import without_tubes


class DenseTerms(nn.Module):
    """Weighted sum of terms of dense logits.

    Args:
        weights: weight of each term by name.
        iterations: of soft-clDice.
        task: the labels.
    """

    def __init__(self, weights: dict[str, float], iterations: int, task: LabelTask) -> None:
        super().__init__()
        self.weights = weights
        makers = {
            "skeleton_recall": lambda: SkeletonRecallTerm(task),
            "soft_cldice": lambda: SoftClDiceTerm(task, iterations),
        }
        self.terms = nn.ModuleDict({name: makers[name]() for name in weights})

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar of logits (B, K, *spatial) and a target (B, C, *spatial) with or without tubes."""
        return sum(self.weights[name] * term(logits, target) for name, term in self.terms.items())


class LossWithTerms(nn.Module):
    """A loss of dense logits plus `DenseTerms`.

    Args:
        loss: the loss.
        terms: what is added.
        task: the labels.
        reads_tubes: the loss takes targets with tubes; others receive them without.
    """

    def __init__(self, loss: nn.Module, terms: DenseTerms, task: LabelTask, *, reads_tubes: bool = False) -> None:
        super().__init__()
        self.loss, self.terms, self.task = loss, terms, task
        self.reads_tubes = reads_tubes

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar, as of `DenseTerms`."""
        of_loss = target if self.reads_tubes else without_tubes(target, self.task)
        return self.loss(logits, of_loss) + self.terms(logits, target)


def additional_terms(settings: TermsConfig, own: Collection[str], task: LabelTask) -> DenseTerms | None:
    """The terms with a weight above 0, without the `own` ones that the loss computes itself; None if there are none."""
    weights = {name: getattr(settings, name) for name in TERMS if name not in own and getattr(settings, name) > 0}
    return DenseTerms(weights, settings.soft_cldice_iterations, task) if weights else None
