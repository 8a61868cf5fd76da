"""Settings of the segmentation heads: where they come from, what they become, and what is refused."""

from __future__ import annotations

import inspect
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path

import pytest
import torch

from dinov3.eval.segmentation import schedulers
from dinov3.eval.segmentation.config import (
    CONFIGS,
    METRICS,
    OUT_LAYERS,
    RELEASED_SEGMENTOR,
    DecoderConfig,
    LoRAConfig,
    ModelDtype,
    SegmentationConfig,
    load_segmentation_config,
    shipped_configs,
)
from dinov3.eval.segmentation.metrics import METRIC_NAMES
from dinov3.eval.segmentation.models import BackboneLayersSet
from dinov3.eval.segmentation.settings.training import SCHEDULERS
from dinov3.layers.lora import apply_lora
from dinov3.utils.config_layers import section_of
from dinov3.utils.errors import UsageError
from dinov3.utils.settings_help import field_docstrings
from dinov3.utils.yaml_config import save_config

# All keys that Meta's public files for linear training and Mask2Former inference use, with its ways of writing values.
IN_THE_STYLE_OF_META = """
bs: 3
n_gpus: 4
num_workers: 5
seed: 7
metric_to_save: 'mIoU'
model_dtype: FLOAT32
scheduler:
  total_iter: 30000
  type: 'WarmupOneCycleLR'
  constructor_kwargs:
    warmup_iters: 1000
    warmup_ratio: 1e-6
    final_div_factor: .inf
    pct_start: 0
    anneal_strategy: 'cos'
    use_beta1: False
    update_momentum: False
optimizer:
  lr : 2e-3
  beta1: 0.8
  beta2: 0.99
  weight_decay: 1e-4
  gradient_clip: 'inf'
datasets:
  root: ""
  train: "ADE20K:split=TRAIN"
  val: "ADE20K:split=VAL"
train:
  diceloss_weight: 0.5
  celoss_weight: 1.0
decoder_head:
  type: "linear"
  backbone_out_layers: FOUR_EVEN_INTERVALS
  use_cls_token: False
  use_batchnorm: True
  use_backbone_norm: True
  num_classes: 21
  dropout: 0.2
transforms:
  train:
    img_size: 512
    random_img_size_ratio_range: [0.5, 2.0]
    crop_size: [512, 512]
    flip_prob: 0.5
  eval:
    img_size: 640
    tta_ratios: [0.9, 1.0, 1.1]
  mean: [123.0, 116.0, 103.0]
  std: [58.0, 57.0, 56.0]
eval:
  compute_metric_per_image: False
  reduce_zero_label: True
  mode: "slide"
  crop_size: 640
  stride: 320
  eval_interval: 5000
  use_tta: True
"""


def write(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return f"config={path}"


def test_defaults_are_those_of_meta():
    config = load_segmentation_config([])
    assert config == SegmentationConfig()
    assert (config.model, config.bs, config.n_gpus, config.num_workers, config.seed) == (None, 2, 8, 6, 100)
    assert (config.model_dtype, config.metric_to_save, config.device) == (ModelDtype.FLOAT32, "mIoU", None)
    optimizer = config.optimizer
    assert (optimizer.lr, optimizer.beta1, optimizer.beta2) == (1e-3, 0.9, 0.999)
    assert (optimizer.weight_decay, optimizer.gradient_clip) == (1e-2, 35.0)
    assert (config.scheduler.type, config.scheduler.total_iter) == ("WarmupOneCycleLR", 40_000)
    head = config.decoder_head
    assert (head.type, head.num_classes, head.hidden_dim, head.dropout) == ("m2f", 150, 2048, 0.1)
    assert (head.num_heads, head.dim_feedforward, head.num_queries) == (16, 4096, 100)
    assert (head.use_batchnorm, head.use_cls_token, head.use_backbone_norm) == (True, False, True)
    assert (config.train.diceloss_weight, config.train.celoss_weight) == (0.0, 1.0)
    assert config.transforms.mean == pytest.approx([123.675, 116.28, 103.53])
    assert config.transforms.std == pytest.approx([58.395, 57.12, 57.375])
    evaluation = config.eval
    assert (evaluation.mode, evaluation.crop_size, evaluation.stride) == ("slide", 512, 341)
    assert (evaluation.eval_interval, evaluation.reduce_zero_label, evaluation.use_tta) == (40_000, True, False)


def test_a_file_in_the_style_of_meta_loads(tmp_path):
    config = load_segmentation_config([write(tmp_path, IN_THE_STYLE_OF_META), "model.dino_hub=dinov3_vits16"])
    assert config.model.dino_hub == "dinov3_vits16"
    assert (config.bs, config.n_gpus, config.num_workers, config.seed) == (3, 4, 5, 7)
    assert config.scheduler.constructor_kwargs == {"warmup_iters": 1000, "final_div_factor": float("inf")}
    assert (config.optimizer.lr, config.optimizer.weight_decay, config.optimizer.gradient_clip) == (2e-3, 1e-4, None)
    assert (config.decoder_head.backbone_out_layers, config.decoder_head.num_classes) == ("FOUR_EVEN_INTERVALS", 21)
    assert (config.transforms.train.crop_size, config.transforms.eval.tta_ratios) == ([512, 512], [0.9, 1.0, 1.1])
    assert (config.eval.crop_size, config.eval.stride, config.eval.use_tta) == (640, 320, True)


@pytest.mark.parametrize("name", shipped_configs())
def test_shipped_files_load_by_name_and_by_path_and_come_back_equal_when_saved(tmp_path, name):
    config = load_segmentation_config([f"config={name}"])
    assert config == load_segmentation_config([f"config={CONFIGS / name}.yaml"])
    assert config == load_segmentation_config([f"config={name}.yaml"])
    save_config(config, tmp_path / "saved.yaml")
    assert load_segmentation_config([f"config={tmp_path / 'saved.yaml'}"]) == config


def test_shipped_files_are_those_of_the_recipes():
    assert shipped_configs() == [
        "config-ade20k-linear-training",
        "config-ade20k-m2f-inference",
        "config-ade20k-m2f-training",
        "config-tiny",
    ]
    linear = load_segmentation_config(["config=config-ade20k-linear-training"])
    assert (linear.decoder_head.type, linear.optimizer.weight_decay, linear.optimizer.gradient_clip) == (
        "linear",
        1e-3,
        None,
    )
    inference = load_segmentation_config(["config=config-ade20k-m2f-inference", f"load_from={RELEASED_SEGMENTOR}"])
    assert (inference.eval.crop_size, inference.eval.stride, inference.transforms.eval.img_size) == (896, 596, 896)
    assert (inference.transforms.eval.tta_ratios, inference.eval.use_tta) == ([0.9, 0.95, 1.0, 1.05, 1.1], True)
    training = load_segmentation_config(["config=config-ade20k-m2f-training"])
    assert (training.optimizer.lr, training.optimizer.weight_decay, training.optimizer.gradient_clip) == (
        1e-4,
        0.05,
        0.01,
    )
    head = training.decoder_head
    assert (head.hidden_dim, head.num_heads, head.dim_feedforward) == (256, 8, 1024)
    assert (training.scheduler.type, training.scheduler.constructor_kwargs["power"]) == ("WarmupPolyLR", 0.9)


def test_words_stand_above_the_file_in_any_order(tmp_path):
    file = write(tmp_path, "bs: 4\nseed: 5\n")
    assert load_segmentation_config(["bs=8", file, "optimizer.lr=1e-4"]).bs == 8
    assert load_segmentation_config([file, "bs=8"]).seed == 5


def test_every_setting_of_every_section_is_documented():
    def undocumented(schema: type) -> list[str]:
        texts, hints = field_docstrings(schema), inspect.get_annotations(schema, eval_str=True)
        missing = [f"{schema.__name__}.{f.name}" for f in fields(schema) if not section_of(hints[f.name])]
        missing = [name for name in missing if not texts.get(name.partition(".")[2])]
        for section in filter(None, map(section_of, hints.values())):
            assert is_dataclass(section)
            missing += undocumented(section)
        return missing

    assert undocumented(SegmentationConfig) == []


def test_blocks_may_be_a_member_of_the_enumeration_in_code():
    assert DecoderConfig(backbone_out_layers=BackboneLayersSet.FOUR_LAST).backbone_out_layers == "FOUR_LAST"


def test_names_and_defaults_kept_here_to_be_light_are_those_of_the_code():
    assert tuple(BackboneLayersSet.__members__) == OUT_LAYERS
    assert sorted(METRICS) == sorted(METRIC_NAMES)
    of_lora = {name: parameter.default for name, parameter in inspect.signature(apply_lora).parameters.items()}
    for name, value in asdict(LoRAConfig()).items():
        assert name == "enabled" or of_lora[name] == (tuple(value) if isinstance(value, list) else value)
    for name, arguments in SCHEDULERS.items():
        accepted = set(inspect.signature(getattr(schedulers, name)).parameters)
        assert set(arguments) == accepted - {"optimizer", "total_iter", "last_epoch"}


def test_number_formats_know_their_torch_type():
    assert ModelDtype.FLOAT32.autocast_dtype is torch.float32
    assert load_segmentation_config(["model_dtype=BFLOAT16"]).model_dtype.autocast_dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        ([], "FOUR_EVEN_INTERVALS"),
        (["decoder_head.type=linear"], "LAST"),
        (["decoder_head.type=linear", "decoder_head.backbone_out_layers=FOUR_LAST"], "FOUR_LAST"),
        (["decoder_head.backbone_out_layers=FOUR_LAST"], "FOUR_LAST"),
        (["decoder_head.backbone_out_layers=[5,11,17,23]"], [5, 11, 17, 23]),
        (["decoder_head.type=linear", "decoder_head.backbone_out_layers=[3,11]"], [3, 11]),
    ],
)
def test_the_blocks_that_are_read_suit_the_head(words, layers):
    assert load_segmentation_config(words).decoder_head.backbone_out_layers == layers


@pytest.mark.parametrize(
    ("words", "kwargs"),
    [
        ([], {"warmup_iters": 1500}),
        (["scheduler.total_iter=200"], {"warmup_iters": 20}),
        (["scheduler.constructor_kwargs.warmup_iters=1e3"], {"warmup_iters": 1000}),
        (["scheduler.type=poly"], {}),
        (
            ["scheduler.type=poly", "scheduler.constructor_kwargs={power: 1, warmup_iters: 3}"],
            {"power": 1, "warmup_iters": 3},
        ),
    ],
)
def test_a_warm_up_that_is_not_given_is_a_tenth_of_the_training_at_most(words, kwargs):
    schedule = load_segmentation_config(words).scheduler
    assert schedule.constructor_kwargs == kwargs
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = schedulers.build_scheduler(schedule.type, optimizer, 1.0, schedule.total_iter, schedule.constructor_kwargs)
    assert type(built).__name__ == schedule.type


def test_one_number_stands_for_both_sides_of_a_crop():
    assert load_segmentation_config(["transforms.train.crop_size=64"]).transforms.train.crop_size == [64, 64]


def test_one_device_is_enough():
    assert load_segmentation_config(["model.device=cpu"]).device == "cpu"
    assert load_segmentation_config(["device=cpu"]).device == "cpu"


def test_the_file_of_a_resumed_training_can_be_evaluated(tmp_path):
    file = write(tmp_path, "resume: true\n")
    assert load_segmentation_config([file]).resume
    assert not load_segmentation_config([file, "load_from=model_final.pth"]).resume


def test_the_patch_size_of_the_backbone_counts_for_the_linear_head():
    words = ["decoder_head.type=linear", "eval.crop_size=518", "eval.stride=518"]
    load_segmentation_config([*words, "model.kwargs={patch_size: 14}"])
    with pytest.raises(
        UsageError, match=r"eval.crop_size=518 must be a multiple of 16 .*patch size.*; the next one is 528"
    ):
        load_segmentation_config(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["decoder_head.typ=m2f"], "There is no setting 'decoder_head.typ'; did you mean decoder_head.type"),
        (["backbone_out_layers=LAST"], "did you mean decoder_head.backbone_out_layers"),
        (["config=a.yaml", "config=b.yaml"], "config= is given 2 times; give one file"),
        (
            ["config=absent.yaml"],
            "config=absent.yaml: there is no such file; .* or one of config-ade20k-linear-training",
        ),
        (["config="], "config=: there is no such file"),
        (["config=other/config-tiny.yaml"], "config=other/config-tiny.yaml: there is no such file"),
        (["decoder_head.type=upernet"], "decoder_head.type='upernet' is not known; choose one of linear, m2f"),
        (["decoder_head.backbone_out_layers=LAST"], "does not suit decoder_head.type=m2f, which reads four blocks"),
        (["decoder_head.backbone_out_layers=[1,2,3]"], r"=\[1, 2, 3\] does not suit decoder_head.type=m2f"),
        (["decoder_head.backbone_out_layers=[3,2,5,7]"], "must be ascending numbers of blocks from 0"),
        (["decoder_head.backbone_out_layers=[-1,2,5,7]"], "must be ascending numbers of blocks from 0"),
        (["decoder_head.backbone_out_layers=four_last"], "'four_last' is not known; choose one of LAST, FOUR_LAST"),
        (["decoder_head.num_classes=1"], "decoder_head.num_classes=1 is out of range; it must be between 2 and 255"),
        (["decoder_head.num_classes=256"], "must be between 2 and 255"),
        (["decoder_head.hidden_dim=100"], "hidden_dim=100 must be a multiple of 32 .* the next one is 128"),
        (["decoder_head.hidden_dim=96", "decoder_head.num_heads=5"], "must be a multiple of 160"),
        (["decoder_head.hidden_dim=-32"], "hidden_dim=-32 is out of range"),
        (["decoder_head.drop_path_rate=1"], "drop_path_rate=1.0 is out of range"),
        (["decoder_head.num_queries=0"], "num_queries=0 is out of range"),
        (["lora.enabled=true", "train_backbone=true"], "lora.enabled=true .* and train_backbone=true .* keep one"),
        (["lora.r=abc"], "^lora.r=abc is not accepted; give a whole number"),
        (["lora.target_modules=qkv"], "lora.target_modules=qkv is not accepted; give a list of words"),
        (["lora.target_modules=[]"], "lora.target_modules is empty"),
        (["lora.lora_dropout=1"], "lora.lora_dropout=1.0 is out of range"),
        (["model_dtype=FLOAT16"], "model_dtype=FLOAT16 is not accepted; give one of FLOAT32, BFLOAT16"),
        (["metric_to_save=miou"], "metric_to_save='miou' is not known; .* did you mean mIoU"),
        (["scheduler.type=Poly"], "scheduler.type='Poly' is not known; choose one of WarmupOneCycleLR, WarmupPolyLR"),
        (
            ["scheduler.constructor_kwargs.powr=1", "scheduler.type=poly"],
            "no setting scheduler.constructor_kwargs.powr for .*WarmupPolyLR; .* did you mean power",
        ),
        (
            ["scheduler.constructor_kwargs.power=1"],
            "choose one of warmup_iters, final_div_factor",
        ),
        (["scheduler.constructor_kwargs.pct_start=0.3"], "pct_start=0.3 is not available; leave it out, which means 0"),
        (["scheduler.constructor_kwargs.final_div_factor=0.5"], "final_div_factor=0.5 is out of range"),
        (["scheduler.constructor_kwargs.final_div_factor=big"], "final_div_factor=big is not accepted; give a number"),
        (["scheduler.constructor_kwargs.warmup_iters=.nan"], "warmup_iters=nan must be a whole number"),
        (["scheduler.constructor_kwargs.warmup_iters=1.5"], "warmup_iters=1.5 must be a whole number"),
        (["scheduler.total_iter=0"], "scheduler.total_iter=0 is out of range"),
        (
            ["scheduler.total_iter=1000", "scheduler.constructor_kwargs.warmup_iters=1500"],
            "warmup_iters=1500 must be a whole number from 0 to 999, as scheduler.total_iter=1000",
        ),
        (["optimizer.lr=-1"], "optimizer.lr=-1.0 is out of range"),
        (["optimizer.beta1=1"], "optimizer.beta1=1.0 is out of range"),
        (["optimizer.gradient_clip=0"], "optimizer.gradient_clip=0.0 must be above 0, or null"),
        (["optimizer.gradient_clip=nan"], "optimizer.gradient_clip=nan must be above 0, or null"),
        (["train.celoss_weight=0"], "are both 0; give at least one of them weight"),
        (["m2f_train.importance_sample_ratio=2"], "must be between 0 and 1"),
        (["ema.decay=1"], "ema.decay=1.0 is out of range"),
        (["transforms.train.crop_size=[500,512]"], r"crop_size=\[500, 512\] must be a multiple of 32 .*\[512, 512\]"),
        (["transforms.train.crop_size=0"], "transforms.train.crop_size=0 is not a size"),
        (["transforms.train.img_size=[1,2,3]"], r"transforms.train.img_size=\[1, 2, 3\] is not a size"),
        (
            ["transforms.train.img_size=big"],
            "img_size=big is not accepted; give a whole number or a list of whole numbers",
        ),
        (
            ["transforms.train.flip_prob=50"],
            "transforms.train.flip_prob=50.0 is out of range; it must be between 0 and 1",
        ),
        (["transforms.train.random_img_size_ratio_range=[2,0.5]"], "must be the smallest and the largest factor"),
        (["transforms.train.random_img_size_ratio_range=[2]"], "must be the smallest and the largest factor"),
        (["transforms.eval.tta_ratios=[]"], "must be factors above 0"),
        (["transforms.eval.tta_ratios=[0]"], "must be factors above 0"),
        (["transforms.mean=[1,2]"], "transforms.mean=.* must be three numbers"),
        (["transforms.std=[1,0,1]"], "transforms.std=.* must be above 0"),
        (["eval.mode=sliding"], "eval.mode='sliding' is not known; choose one of slide, whole; did you mean slide"),
        (["eval.crop_size=500"], "eval.crop_size=500 must be a multiple of 32 .*; the next one is 512"),
        (["eval.stride=600"], "eval.stride=600 is larger than eval.crop_size=512, which would leave gaps"),
        (["eval.stride=null"], "eval.stride is null; eval.mode=slide needs a number, or set eval.mode=whole"),
        (["eval.eval_interval=0"], "eval.eval_interval=0 is out of range"),
        (["bs=0"], "bs=0 is out of range"),
        (["datasets.class_names=[a,b]"], "class_names has 2 names and decoder_head.num_classes is 150; name all"),
        (["num_workers=-1"], "num_workers=-1 is out of range"),
        (["checkpoint_interval=0"], "checkpoint_interval=0 is out of range"),
        (["device=gpu"], "device='gpu' is not known; choose one of cpu, cuda, mps"),
        (["model.device=cuda", "device=cpu"], "device=cpu and model.device=cuda differ"),
        (["resume=true", "load_from=model.pth"], "resume=true goes on with a training and load_from evaluates"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(words, message):
    with pytest.raises(UsageError, match=message) as caught:
        load_segmentation_config(words)
    assert "\n" not in str(caught.value)


def test_a_patch_size_that_cannot_be_is_left_to_the_model():
    words = ["decoder_head.type=linear", "model.dino_hub=dinov3_vits16", "model.kwargs.patch_size=0"]
    assert load_segmentation_config([*words, "transforms.train.crop_size=512"]).model.kwargs == {"patch_size": 0}


def test_windows_are_not_checked_where_there_are_none():
    config = load_segmentation_config(["eval.mode=whole", "eval.crop_size=null", "eval.stride=null"])
    assert (config.eval.crop_size, config.eval.stride) == (None, None)


def test_a_wrong_key_in_a_file_is_refused_with_its_line(tmp_path):
    with pytest.raises(
        UsageError, match="line 3: there is no setting 'transforms.train.crop'; did you mean transforms"
    ):
        load_segmentation_config([write(tmp_path, "transforms:\n  train:\n    crop: 64\n")])


def test_images_have_three_channels():
    with pytest.raises(UsageError, match="model.kwargs.in_chans=1 is not available: images are read as 3 channels"):
        load_segmentation_config(["config=config-tiny", "model.kwargs.in_chans=1"])
