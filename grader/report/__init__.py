"""One result, many renderings: the terminal, JSON, CSV, HTML and a page for each student."""
