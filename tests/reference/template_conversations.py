"""Conversations for the template tests: what templates meet in the field, valid and not."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city — \"now\" <b>&</b>",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name, e.g. Zürich"},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "integer", "default": 1},
                "hours": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Time", "parameters": {
    "type": "object", "properties": {}}}}


def call(name, arguments, identifier="abcdef123"):
    return {"type": "function", "id": identifier, "function": {"name": name, "arguments": arguments}}


def chat(*turns, **extra):
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "x": "narrator", "d": "developer"}
    return {"messages": [{"role": roles[role], "content": content} for role, content in turns], **extra}


CONVERSATIONS = {
    "one question": chat(("u", "Hi there")),
    "one exchange": chat(("u", "Hi"), ("a", "Hello!")),
    "system": chat(("s", "You are brief."), ("u", "Hi"), ("a", "Hello!")),
    "many turns": chat(("u", "One"), ("a", "1"), ("u", "Two"), ("a", "2"), ("u", "Three"), ("a", "3")),
    "system and many turns": chat(("s", "Count."), ("u", "One"), ("a", "1"), ("u", "Two"), ("a", "2")),
    "white space": chat(("s", "  pad  "), ("u", "\n Hi \t"), ("a", "  Hello \n\n"), ("u", " ?"), ("a", "\n!\n")),
    "empty contents": chat(("s", ""), ("u", ""), ("a", ""), ("u", "x"), ("a", "")),
    "no messages": {"messages": []},
    "unicode": chat(("s", "Antworte höflich 🙂"), ("u", "日本語 \u00a0é e\u0301 \U0001F468\u200d\U0001F469"), ("a", "Привет — ﷺ "),
                    ("u", "\u2028line\u2029"), ("a", "\u3000全角\u3000")),
    "markup in content": chat(("u", "<|im_start|>user [INST] {{ 7*7 }} {% raw %}"), ("a", "</s><|eot_id|> & \"q\" 'q'")),
    "user twice": chat(("u", "Hi"), ("u", "again"), ("a", "Hello")),
    "assistant first": chat(("a", "Welcome"), ("u", "Hi"), ("a", "Hello")),
    "late system": chat(("u", "Hi"), ("s", "Be brief"), ("a", "Hello")),
    "unknown role": chat(("u", "Hi"), ("x", "meanwhile"), ("a", "Hello")),
    "developer role": chat(("d", "Be brief"), ("u", "Hi"), ("a", "Hello")),
    "reasoning inline": chat(("u", "2+2"), ("a", "<think>\nadd\n</think>\n\n4"), ("u", "3+3"),
                             ("a", "<think>\nadd again\n</think>\n\n6")),
    "reasoning field": {"messages": [
        {"role": "user", "content": "2+2"},
        {"role": "assistant", "content": "4", "reasoning_content": "add\n", "thinking": "add"},
        {"role": "user", "content": "3+3"},
        {"role": "assistant", "content": "6", "reasoning_content": "\nadd again", "thinking": "again"}]},
    "no thinking": chat(("u", "2+2"), ("a", "4"), enable_thinking=False, reasoning_effort="high"),
    "tools offered": chat(("s", "Use tools."), ("u", "Weather?"), ("a", "Where?"), tools=[WEATHER, CLOCK]),
    "tools without system": chat(("u", "Weather?"), tools=[WEATHER]),
    "empty tools": chat(("u", "Weather?"), ("a", "Sunny"), tools=[]),
    "tool call": {"messages": [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "Weather in Zürich?"},
        {"role": "assistant", "content": "", "tool_calls": [call("get_weather", {"city": "Zürich", "days": 2})]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"temp\": 21.5}"},
        {"role": "assistant", "content": "It is 21.5 °C."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Any time."}], "tools": [WEATHER, CLOCK]},
    "tool call without content": {"messages": [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": None, "tool_calls": [call("clock", {})]},
        {"role": "tool", "name": "clock", "tool_call_id": "abcdef123", "content": "12:00"},
        {"role": "assistant", "content": "Noon."}], "tools": [CLOCK]},
    "two tool calls": {"messages": [
        {"role": "user", "content": "Both?"},
        {"role": "assistant", "content": "Let me see.",
         "tool_calls": [call("clock", {"zone": None, "exact": True, "x": 1.0}), call("get_weather", {"city": "Bern"}, "zzzzzz999")]},
        {"role": "tool", "name": "clock", "tool_call_id": "abcdef123", "content": "12:00"},
        {"role": "tool", "name": "get_weather", "tool_call_id": "zzzzzz999", "content": {"temp": [1, 2.50, None, False]}},
        {"role": "assistant", "content": "Noon and fair."}], "tools": [WEATHER, CLOCK]},
    "arguments as text": {"messages": [
        {"role": "user", "content": "Time?"},
        {"role": "assistant", "content": "", "tool_calls": [call("clock", "{\"zone\": \"CET\"}", "short")]}],
        "tools": [CLOCK]},
    "content in parts": {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "Look: "}, {"type": "image"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}]},
    "content missing": {"messages": [{"role": "user"}, {"role": "assistant", "content": "?"}]},
    "content null": {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": None}]},
    "role missing": {"messages": [{"content": "Hi"}]},
    "content number": {"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": 4.0}]},
    "documents": chat(("u", "What do they say?"), ("a", "Much."), documents=[{"title": "A", "text": "a b"}, {"title": "B", "text": "c"}]),
    "own date": chat(("s", "Be exact."), ("u", "Date?"), ("a", "Today."), date_string="26 Jul 2024"),
    "tools in user message": chat(("u", "Weather?"), tools=[WEATHER], tools_in_user_message=False),
    "content repeated": chat(("u", "yes"), ("a", "yes"), ("u", "yes yes"), ("a", "yes")),
}
