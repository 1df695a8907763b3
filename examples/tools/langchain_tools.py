"""LangChain tools as tools of plans. Needs `pip install langchain-core`.

autoglm tools --provider lc=python:examples/tools/langchain_tools.py
autoglm call lc.reading_time --args '{"text": "To be or not to be"}' --provider lc=python:examples/tools/langchain_tools.py
"""

from langchain_core.tools import tool

import autoglm
from autoglm.integrations.langchain import from_langchain


@tool
def minutes(text: str, words_a_minute: int = 200) -> float:
    """Tell how many minutes a person takes to read a text."""
    return round(len(text.split()) / words_a_minute, 2)


reading_time = from_langchain(minutes, name="reading_time", effect=autoglm.Effect.READ_ONLY)
