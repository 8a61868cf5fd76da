"""Share trained models as zip files: export, install, download."""
