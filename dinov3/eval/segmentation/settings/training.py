"""Settings of the optimisation. An iteration is one optimiser step on one batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from dinov3.utils.errors import UsageError
from dinov3.utils.yaml_config import nearest, require_choice, require_range

SCHEDULERS = {
    "WarmupOneCycleLR": ("warmup_iters", "final_div_factor"),
    "WarmupPolyLR": ("warmup_iters", "warmup_start", "power"),
}
"""Learning rate schedules and the allowed `scheduler.constructor_kwargs` of each."""
LONGEST_DEFAULT_WARMUP = 1500  # iterations, as in Meta's recipe for the linear head

# Arguments in Meta's files for its schedule of the same name that ours lacks, with the values that describe what
# ours does anyway: no rise within the cycle, a cosine, constant momentum, a warm-up from almost 0.
_META_ONE_CYCLE = {
    "pct_start": (0,),
    "anneal_strategy": ("cos",),
    "use_beta1": (False,),
    "update_momentum": (False,),
    "warmup_ratio": (0, 1e-6),
}


@dataclass
class OptimizerConfig:
    """AdamW."""

    lr: float = 1e-3
    """Peak learning rate; 1e-3 suits the linear head, 1e-4 Mask2Former."""
    beta1: float = 0.9
    """Decay of the running mean of the gradient, in [0, 1)."""
    beta2: float = 0.999
    """Decay of the running mean of the squared gradient, in [0, 1)."""
    weight_decay: float = 1e-2
    """Weight decay of weight matrices and kernels; norms, biases and embeddings have none."""
    gradient_clip: float | None = 35.0
    """Maximum L2 norm of the total gradient; null or inf: no clipping."""
    backbone_lr_multiplier: float = 0.1
    """Learning rate of the backbone's own weights relative to lr; used with train_backbone."""

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay", "backbone_lr_multiplier"):
            require_range(f"optimizer.{name}", getattr(self, name), 0)
        for name in ("beta1", "beta2"):
            require_range(f"optimizer.{name}", getattr(self, name), 0, math.nextafter(1, 0))
        if self.gradient_clip == math.inf:
            self.gradient_clip = None
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise UsageError(f"optimizer.gradient_clip={self.gradient_clip} must be above 0, or null for no limit")


@dataclass
class SchedulerConfig:
    """Learning rate schedule and length of the training."""

    type: str = "WarmupOneCycleLR"
    """Decay after a linear warm-up: WarmupOneCycleLR (half a cosine) or WarmupPolyLR (or poly; polynomial)."""
    total_iter: int = 40_000
    """Iterations of the training."""
    constructor_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the schedule: warmup_iters, and final_div_factor (one cycle), or warmup_start and power (poly)."""

    def __post_init__(self) -> None:
        if self.type == "poly":
            self.type = "WarmupPolyLR"
        require_choice("scheduler.type", self.type, tuple(SCHEDULERS))
        require_range("scheduler.total_iter", self.total_iter, 1)
        kwargs = _without_metas(self.constructor_kwargs) if self.type == "WarmupOneCycleLR" else self.constructor_kwargs
        known = SCHEDULERS[self.type]
        for name, value in kwargs.items():
            if name not in known:
                raise UsageError(
                    f"There is no setting scheduler.constructor_kwargs.{name} for scheduler.type={self.type}; "
                    f"choose one of {', '.join(known)}{nearest(name, known)}"
                )
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"scheduler.constructor_kwargs.{name}={value} is not accepted; give a number")
        if self.type == "WarmupOneCycleLR":
            default_warmup = min(LONGEST_DEFAULT_WARMUP, self.total_iter // 10)
            kwargs = {"warmup_iters": default_warmup, **kwargs}
        self._check_ranges(kwargs)
        self.constructor_kwargs = kwargs | {name: int(kwargs[name]) for name in ("warmup_iters",) if name in kwargs}

    def _check_ranges(self, kwargs: dict[str, Any]) -> None:
        name = "scheduler.constructor_kwargs."
        warmup = kwargs.get("warmup_iters", 0)
        if not 0 <= warmup < self.total_iter or warmup != int(warmup):
            raise UsageError(
                f"{name}warmup_iters={warmup} must be a whole number from 0 to {self.total_iter - 1}, "
                f"as scheduler.total_iter={self.total_iter}"
            )
        if not kwargs.get("final_div_factor", 1) >= 1:  # infinity ends at 0
            raise UsageError(
                f"{name}final_div_factor={kwargs['final_div_factor']} is out of range; it must be at least 1"
            )
        require_range(f"{name}warmup_start", kwargs.get("warmup_start", 0), 0, 1)
        require_range(f"{name}power", kwargs.get("power", 1), 0)


@dataclass
class TrainConfig:
    """Loss of the linear head."""

    diceloss_weight: float = 0.0
    """Weight of the Dice loss."""
    celoss_weight: float = 1.0
    """Weight of the cross-entropy."""

    def __post_init__(self) -> None:
        for name in ("diceloss_weight", "celoss_weight"):
            require_range(f"train.{name}", getattr(self, name), 0)
        if self.diceloss_weight == self.celoss_weight == 0:
            raise UsageError(
                "train.diceloss_weight and train.celoss_weight are both 0; give at least one of them weight"
            )


@dataclass
class M2FTrainConfig:
    """Loss of the Mask2Former head. Source: Cheng et al. 2022, arXiv:2112.01527, section 4.1."""

    num_points: int = 12544
    """Points per mask at which masks are compared (112 x 112)."""
    oversample_ratio: float = 3.0
    """Candidates drawn per loss point, of which the most uncertain are kept."""
    importance_sample_ratio: float = 0.75
    """Share of the points selected by uncertainty, in [0, 1]; the rest is uniform."""
    mask_coefficient: float = 5.0
    """Weight of the binary cross-entropy of masks."""
    dice_coefficient: float = 5.0
    """Weight of the Dice loss of masks."""
    class_coefficient: float = 2.0
    """Weight of the cross-entropy of classes."""
    no_object_coefficient: float = 0.1
    """Weight of the class "no object" within that cross-entropy."""
    match_on_device: bool = False
    """Match queries and masks on the GPU instead of with scipy, so that the host never waits for it. The matching is
    the same, but T masks per image take about 20 T (T + 1) small operations."""

    def __post_init__(self) -> None:
        require_range("m2f_train.num_points", self.num_points, 1)
        require_range("m2f_train.oversample_ratio", self.oversample_ratio, 1)
        require_range("m2f_train.importance_sample_ratio", self.importance_sample_ratio, 0, 1)
        for name in ("mask_coefficient", "dice_coefficient", "class_coefficient", "no_object_coefficient"):
            require_range(f"m2f_train.{name}", getattr(self, name), 0)


@dataclass
class LoRAConfig:
    """Low-rank adapters in the backbone, whose own weights are then frozen."""

    enabled: bool = False
    """Train adapters in the backbone in addition to the head."""
    r: int = 8
    """Rank of an adapter."""
    lora_alpha: int = 16
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = 0.1
    """Probability of dropping an adapter's input while training, in [0, 1)."""
    target_modules: list[str] = field(default_factory=lambda: ["qkv", "proj"])
    """Linear layers of the transformer blocks that get an adapter."""

    def __post_init__(self) -> None:
        require_range("lora.r", self.r, 1)
        require_range("lora.lora_alpha", self.lora_alpha, 1)
        require_range("lora.lora_dropout", self.lora_dropout, 0, 0.99)
        if not self.target_modules:
            raise UsageError(
                "lora.target_modules is empty; name layers, for example [qkv,proj], or set lora.enabled=false"
            )


@dataclass
class EMAConfig:
    """Exponential moving average of the trained weights."""

    enabled: bool = False
    """Evaluate and save the averaged weights."""
    decay: float = 0.9999
    """Fraction of the average kept at each iteration, in [0, 1)."""

    def __post_init__(self) -> None:
        require_range("ema.decay", self.decay, 0, math.nextafter(1, 0))


def _without_metas(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Removes arguments of Meta's schedule that only describe what ours does anyway."""
    for name, neutral in _META_ONE_CYCLE.items():
        if name in kwargs and kwargs[name] not in neutral:
            raise UsageError(
                f"scheduler.constructor_kwargs.{name}={kwargs[name]} is not available; leave it out, which means "
                f"{neutral[0]}"
            )
    return {name: value for name, value in kwargs.items() if name not in _META_ONE_CYCLE}
