"""What a run says about itself: a table for the terminal, `summary.json`, one self-contained HTML page with plots."""
