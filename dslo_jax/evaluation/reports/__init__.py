"""Results of evaluations and ablations as plain values, Markdown, pages and plots."""
