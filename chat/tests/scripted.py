"""A backend that answers from a script, so that screens can be tested step by step."""
