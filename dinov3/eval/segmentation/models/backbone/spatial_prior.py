"""Convolutional branch of the adapter: local detail that a plain vision transformer lacks."""

from __future__ import annotations

from torch import Tensor, nn


def _conv_norm_relu(in_channels: int, out_channels: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class SpatialPriorModule(nn.Module):
    """Four feature maps at 1/4, 1/8, 1/16 and 1/32 of the image, all with D channels.

    The norms are BatchNorm2d. For distributed training, see `dinov3.layers.synced_batch_norm`.

    Args:
        inplanes: Channels at 1/4; twice as many at 1/8, four times at 1/16 and 1/32.
        embed_dim: Channels D of the returned maps.
        in_channels: Channels C of the images.

    Source: Chen et al. 2023, "Vision Transformer Adapter for Dense Predictions", section 3.3, arXiv:2205.08534.
    """

    def __init__(self, inplanes: int = 64, embed_dim: int = 384, *, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_conv_norm_relu(in_channels, inplanes, stride=2),
            *_conv_norm_relu(inplanes, inplanes, stride=1),
            *_conv_norm_relu(inplanes, inplanes, stride=1),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_conv_norm_relu(inplanes, 2 * inplanes, stride=2))
        self.conv3 = nn.Sequential(*_conv_norm_relu(2 * inplanes, 4 * inplanes, stride=2))
        self.conv4 = nn.Sequential(*_conv_norm_relu(4 * inplanes, 4 * inplanes, stride=2))
        self.fc1 = nn.Conv2d(inplanes, embed_dim, kernel_size=1)
        self.fc2 = nn.Conv2d(2 * inplanes, embed_dim, kernel_size=1)
        self.fc3 = nn.Conv2d(4 * inplanes, embed_dim, kernel_size=1)
        self.fc4 = nn.Conv2d(4 * inplanes, embed_dim, kernel_size=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Takes (B, C, H, W), H and W multiples of 32; returns the four maps, finest first."""
        c1 = self.stem(image)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        return self.fc1(c1), self.fc2(c2), self.fc3(c3), self.fc4(c4)
