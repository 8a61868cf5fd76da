"""The command nnUNetv2_import_images: a folder of pictures and masks becomes a raw dataset."""
