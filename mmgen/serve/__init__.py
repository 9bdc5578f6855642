"""HTTP in OpenAI's shapes over a session: chat, pictures, responses, metrics.

`app` is the router, `server` runs it. What comes in becomes requests of `mmgen.generate` and its
events become JSON in functions that know nothing of the web (`*_input`, `*_wire`); any `Service`
can stand behind them, whatever its engine. Needs the extra `mmgen[serve]`.
"""

__all__: list[str] = []
