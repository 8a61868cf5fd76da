"""What an evaluation leaves behind: tables of metrics and pictures."""
