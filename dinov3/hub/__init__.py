"""Released models: architectures, download of weights, and loading of weights in any known format."""
