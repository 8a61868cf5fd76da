"""What lies in the folder of a training: found there, kept there, resumed from there."""
