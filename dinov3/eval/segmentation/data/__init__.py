"""Images and label maps: found, read, resized, distorted and put into batches."""
