"""The book: every chapter as a web page, and its figure in a page or a notebook.

In a notebook: `from grader.book import explore; explore("06_attention")`.
"""

from grader.book.figures import explore

__all__ = ["explore"]
