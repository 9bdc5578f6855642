"""Generation: requests to ids by an engine, and to words and pictures by a session.

`engine` is the contract and `torch_engine` its embedded implementation; `session` turns documents
into engine requests and steps into events. Import from the modules: some of them load torch.
"""

__all__: list[str] = []
