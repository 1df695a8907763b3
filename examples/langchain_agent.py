"""AutoGLM as tools of a LangChain agent, and as plain function schemas. Needs `pip install langchain-core`.

    python examples/langchain_agent.py

No model is asked here: the calls below are those that a model would make.
"""

import autoglm
from autoglm.integrations import functions
from autoglm.integrations.langchain import client_tools, plan_tool

with autoglm.init() as client:
    # What an agent is given: one tool that runs whole requests as plans, and every tool of the server.
    plan = plan_tool(client)
    tools = {tool.name: tool for tool in client_tools(client)}
    print(f"{plan.name}, and {len(tools)} tools such as {', '.join(sorted(tools)[:3])}")

    # What the agent does with them.
    print(plan.invoke({"request": "15% of 2480, then convert it from kilometers to miles"}))
    print(tools["math__calculate"].invoke({"expression": "6 * 7"}))

    # The same for a program that talks to a model itself, by schemas as OpenAI's protocol has them.
    schemas = [functions.plan_schema(), *functions.tool_schemas(client)]
    print(
        f"{len(schemas)} functions; a call of one gives",
        functions.call(client, "text__reverse", '{"text": "stressed"}'),
    )
