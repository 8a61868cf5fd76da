"""What the vision transformer returns for what it is asked."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from dinov3.models.vision_transformer import DinoVisionTransformer
from tests.dinov3.vit_weights import tiny_vit


@pytest.fixture
def image(seeded):
    return torch.randn(2, 3, 48, 32)


def test_layers_are_those_of_a_loop_over_the_blocks(image):
    model = tiny_vit()
    with torch.no_grad():
        tokens, size = model.prepare_tokens_with_masks(image)
        assert tokens.shape == (2, 1 + 4 + 6, 32) and size == (3, 2)
        outputs = []
        for block in model.blocks:
            tokens = block(tokens, model.rope_embed.rotation(3, 2, 5))
            outputs.append(tokens)
        for norm in (False, True):
            expected = [model.norm(tokens) if norm else tokens for tokens in outputs]
            layers = model.get_intermediate_layers(image, n=[0, 3], norm=norm)
            assert_close(layers, (expected[0][:, 5:], expected[3][:, 5:]), atol=0, rtol=0)


def test_layers_come_in_the_order_of_the_blocks(image):
    model = tiny_vit()
    with torch.no_grad():
        layers = model.get_intermediate_layers(image, n=[3, 1])
        assert_close(layers, model.get_intermediate_layers(image, n=(1, 3)), atol=0, rtol=0)
        assert_close(layers[1:], model.get_intermediate_layers(image), atol=0, rtol=0)
        assert_close(layers, model.get_intermediate_layers(image, n=3)[::2], atol=0, rtol=0)


def test_extra_tokens_follow_the_patches(image):
    model = tiny_vit()
    with torch.no_grad():
        ((tokens, class_token, storage),) = model.get_intermediate_layers(
            image, return_class_token=True, return_extra_tokens=True
        )
        ((maps, storage_alone),) = model.get_intermediate_layers(image, reshape=True, return_extra_tokens=True)
        features = model(image, is_training=True)
    assert maps.shape == (2, 32, 3, 2) and maps.is_contiguous()
    assert_close(maps[1, :, 2, 0], tokens[1, 4], atol=0, rtol=0)
    assert class_token.shape == (2, 32) and storage.shape == (2, 4, 32)
    assert_close(storage_alone, storage, atol=0, rtol=0)
    assert_close(features["x_norm_clstoken"], class_token, atol=0, rtol=0)
    assert_close(features["x_storage_tokens"], storage, atol=0, rtol=0)
    assert_close(features["x_norm_patchtokens"], tokens, atol=0, rtol=0)
    assert_close(model.norm(features["x_prenorm"])[:, 5:], tokens, atol=0, rtol=0)
    assert features["masks"] is None
    assert_close(model(image), class_token, atol=0, rtol=0)


def test_blocks_past_the_last_wanted_one_are_not_computed(image):
    model = tiny_vit()
    model.blocks[2].register_forward_pre_hook(lambda *_: pytest.fail("block 2 was computed"))
    model.get_intermediate_layers(image, n=[0, 1])


@pytest.mark.parametrize("n", [0, 5, [], [1, 4], [-1], [2, 2]])
def test_blocks_that_do_not_exist_are_refused(n, image):
    with pytest.raises(ValueError, match=r"n=.* was given, of a model with 4 blocks; .*\(1 to 4\).* from 0 to 3"):
        tiny_vit().get_intermediate_layers(image, n=n)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 50, 32), "image of 50 x 32 pixels .* patches of 16 x 16 do not tile; pad or resize it to 64 x 32"),
        ((1, 3, 32, 33), "pad or resize it to 32 x 48"),
        ((1, 3, 0, 32), "pad or resize it to 16 x 32"),
        ((1, 1, 32, 32), r"shape \(1, 1, 32, 32\) was given; this model takes \(batch, 3, height, width\)"),
        ((3, 32, 32), r"shape \(3, 32, 32\) was given"),
    ],
)
def test_images_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        tiny_vit()(torch.zeros(shape))


def test_other_patch_sizes_and_channels(seeded):
    model = tiny_vit(patch_size=14, in_chans=1, n_storage_tokens=0)
    (maps,) = model.get_intermediate_layers(torch.randn(1, 1, 28, 42), reshape=True)
    assert maps.shape == (1, 32, 2, 3)
    assert "storage_tokens" not in model.state_dict()
    assert model.forward_features(torch.randn(1, 1, 28, 42))["x_storage_tokens"].shape == (1, 0, 32)


def test_class_and_storage_tokens_may_have_a_norm_of_their_own(image):
    model = tiny_vit(untie_cls_and_patch_norms=True)
    with torch.no_grad():
        ((tokens, class_token, storage),) = model.get_intermediate_layers(
            image, return_class_token=True, return_extra_tokens=True
        )
        features = model.forward_features(image)
        prenorm = features["x_prenorm"]
        assert_close(class_token, model.cls_norm(prenorm[:, 0]))
        assert_close(storage, model.cls_norm(prenorm[:, 1:5]))
        assert_close(tokens, model.norm(prenorm[:, 5:]))
        assert_close(features["x_norm_clstoken"], class_token)


def test_norm_of_local_crops_serves_the_second_crop_in_training_alone(image):
    model = tiny_vit(untie_global_and_local_cls_norm=True, pos_embed_rope_rescale_coords=None)
    crops = [image, image[..., :16]]
    with torch.no_grad():
        for is_training, local_norm in ((True, model.local_cls_norm), (False, model.norm)):
            whole, local = model.train(is_training).forward_features(crops, [None, None])
            assert_close(whole["x_norm_clstoken"], model.norm(whole["x_prenorm"][:, 0]))
            assert_close(local["x_norm_clstoken"], local_norm(local["x_prenorm"][:, 0]))
            assert_close(local["x_norm_patchtokens"], model.norm(local["x_prenorm"][:, 5:]))
            assert_close(model(image), whole["x_norm_clstoken"])
        assert not torch.equal(model.norm.weight, model.local_cls_norm.weight)
        first, second = model(crops)
        assert first.shape == second.shape == (2, 32)


def test_position_rescaling_acts_in_train_mode_alone_and_anew_in_every_block(image, monkeypatch):
    model = tiny_vit()
    drawn = []
    make = type(model.rope_embed).rotation
    monkeypatch.setattr(
        type(model.rope_embed), "rotation", lambda self, *size: drawn.append(make(self, *size)) or drawn[-1]
    )
    with torch.no_grad():
        calm = [model(image) for _ in range(2)]
        assert_close(calm[0], calm[1], atol=0, rtol=0)
        assert all(rotation is drawn[0] for rotation in drawn)
        drawn.clear()
        moved = [model.train()(image) for _ in range(2)]
    assert (moved[0] - moved[1]).abs().max() > 1e-4 and (moved[0] - calm[0]).abs().max() > 1e-4
    assert len({rotation.cosine.sum().item() for rotation in drawn}) == 2 * 4


def test_gradients_reach_everything_that_plain_images_use(image):
    model = tiny_vit().train()
    sum(layer.square().mean() for layer in model.get_intermediate_layers(image, n=4)).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    silent = {name for name, parameter in model.named_parameters() if not parameter.grad.any()}
    assert silent == {"mask_token"}
    key_bias = model.blocks[0].attn.qkv.bias.grad.chunk(3)[1]
    assert not key_bias.any()


def test_mask_token_learns_from_masked_patches(image):
    model = tiny_vit()
    model(image, torch.tensor([[True] * 2 + [False] * 4] * 2)).square().mean().backward()
    assert model.mask_token.grad.any()


def test_a_copy_gives_the_same_and_is_independent(image):
    model = tiny_vit()
    with torch.no_grad():
        before = model(image)
        twin = copy.deepcopy(model)
        assert_close(twin(image), before, atol=0, rtol=0)
        twin.cls_token.add_(1)
        assert_close(model(image), before, atol=0, rtol=0)


def test_bfloat16_stays_close_to_float32(image):
    model = tiny_vit()
    with torch.no_grad():
        expected = model(image)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(image)
        cast = model.bfloat16()(image.bfloat16())
    assert cast.dtype == torch.bfloat16
    for result in (mixed, cast):
        assert_close(result.float(), expected, atol=0.15, rtol=0.05)


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}, {"mask_k_bias": False}, {"norm_layer": "rmsnorm"}])
def test_initial_weights(options, seeded):
    model = tiny_vit(**{"embed_dim": 64, **options})
    model.rope_embed.periods.fill_(torch.nan)
    model.init_weights()
    weights = model.blocks[0].mlp.fc1.weight
    assert_close(weights.std(), torch.tensor(0.02), atol=1e-3, rtol=0)
    assert not model.mask_token.any() and not model.blocks[1].attn.proj.bias.any()
    assert model.cls_token.any() and model.storage_tokens.any()
    assert (model.blocks[2].ls1.gamma == 1e-5).all() and (model.norm.weight == 1).all()
    assert_close(model.patch_embed.proj.weight.abs().max(), torch.tensor(768**-0.5), atol=1e-4, rtol=0)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_nothing_is_undefined_before_weights_are_drawn_or_loaded():
    model = DinoVisionTransformer(embed_dim=32, depth=1, num_heads=2, n_storage_tokens=4, mask_k_bias=True)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert model.blocks[0].attn.qkv.bias_mask.view(3, 32).mean(1).tolist() == [1, 0, 1]


def test_attributes_that_segmentation_models_ask_for():
    model = tiny_vit(in_chans=1)
    assert (model.embed_dim, model.num_features, model.patch_size, model.num_heads) == (32, 32, 16, 2)
    assert (model.n_blocks, model.num_blocks, model.n_storage_tokens) == (4, 4, 4)
    assert (model.in_chans, model.in_channels) == (1, 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pos_embed_rope_dtype": "float32"}, ValueError, "'float32' is unknown; choose one of fp32, fp16, bf16"),
        ({"ffn_layer": "gelu"}, ValueError, "ffn_layer 'gelu' is unknown"),
        ({"drop_path_rate": 1.0}, ValueError, "drop path rate of 1.0"),
        ({"rope_base": 100}, TypeError, "unexpected keyword argument 'rope_base'"),
    ],
)
def test_impossible_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        tiny_vit(**options)


def test_dropped_paths_leave_samples_as_they_were(image):
    model = tiny_vit(drop_path_rate=0.5, pos_embed_rope_rescale_coords=None)
    tokens, _ = model.prepare_tokens_with_masks(image[:1].expand(64, -1, -1, -1))
    with torch.no_grad():
        unchanged = (model.blocks[0].train()(tokens) == tokens).all(dim=(1, 2)).float().mean()
    assert 0.1 < unchanged < 0.45  # a quarter: attention and feed-forward layer are dropped apart


@pytest.mark.slow
def test_compiles_to_one_graph(image):
    model = tiny_vit()
    compiled = torch.compile(
        lambda x: model.get_intermediate_layers(x, n=[1, 3], reshape=True), backend="eager", fullgraph=True
    )
    with torch.no_grad():
        assert_close(compiled(image), model.get_intermediate_layers(image, n=[1, 3], reshape=True), atol=1e-6, rtol=0)
