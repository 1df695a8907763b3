"""The one HTTP client of tools: it talks to hosts that the configuration allows, at addresses that were checked.

``urls`` reads and normalises, ``hosts`` says who may be talked to, ``addresses`` where, ``network`` connects to just the
address that was checked, ``bodies`` decodes within bounds, ``client`` puts it together, ``failures`` tells what went wrong.

``client`` and ``network`` need httpcore2 (extra ``openapi``) and are imported when a tool needs them.
"""
