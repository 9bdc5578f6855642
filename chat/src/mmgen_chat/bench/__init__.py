"""What the chat costs: its start, the echo of a key, a repaint, and memory over a long dialogue."""
