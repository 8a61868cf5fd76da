"""`nnUNetv2_doctor`: finds what is wrong with an installation and names the cure."""
