"""mmgen: pictures from words and words from pictures, with one model over one stream of integers.

Importing the package loads nothing else; name the module that you need.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
