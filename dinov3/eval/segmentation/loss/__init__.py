"""Losses of the segmentation heads; Mask2Former's is in `mask_classification_loss.py`, its parts are here."""

from dinov3.eval.segmentation.loss.multi_segmentation_loss import MultiSegmentationLoss, cross_entropy, dice_loss

__all__ = ["MultiSegmentationLoss", "cross_entropy", "dice_loss"]
