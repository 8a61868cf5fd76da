"""How pretrained weights get into a backbone: where they come from, which form they have, what was taken."""
