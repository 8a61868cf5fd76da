"""Losses of the segmentation heads; that of Mask2Former is in `mask_classification_loss.py`, its parts are here."""

from dinov3.eval.segmentation.loss.multi_segmentation_loss import MultiSegmentationLoss, cross_entropy, dice_loss

__all__ = ["MultiSegmentationLoss", "cross_entropy", "dice_loss"]
