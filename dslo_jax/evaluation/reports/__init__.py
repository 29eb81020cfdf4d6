"""What evaluations and ablations found, as plain values, Markdown, pages and plots."""
