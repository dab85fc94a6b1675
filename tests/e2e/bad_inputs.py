"""Every bad input gets a non-zero exit and words that name what is wrong, what is allowed and what to do; the server goes on
serving. Prints the table of what was said.

    bad_inputs.py
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import grpc

from service import BIN, Service, api, make_model


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="finetuned-bad-"))
    pb, rpc, _ = api(directory)
    models, data = directory / "models", directory / "datasets"
    make_model(models / "tiny")
    data.mkdir()
    good = [json.dumps({"instruction": f"what is {i}?", "response": f"the number {i}"}) for i in range(20)]
    (data / "good.jsonl").write_text("\n".join(good))
    (data / "empty.jsonl").write_text("")
    (data / "broken.jsonl").write_text("\n".join(line[:-9] for line in good))
    (data / "raises.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    (models / "no-model").mkdir()
    (models / "no-model/readme.txt").write_text("nothing here")
    shutil.copytree(models / "tiny", models / "bert")
    config = json.loads((models / "bert/config.json").read_text())
    (models / "bert/config.json").write_text(json.dumps(config | {"architectures": ["BertModel"], "model_type": "bert"}))
    shutil.copytree(models / "tiny", models / "truncated")
    weights = models / "truncated/model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    outside = directory / "secret.jsonl"
    outside.write_text("\n".join(good))
    (data / "link.jsonl").symlink_to(outside)
    service = Service(directory)
    service.start()

    def command(*words, server=None):
        address = server or f"127.0.0.1:{service.port}"
        done = subprocess.run([BIN / words[0], *([] if words[0] == "finetuned" else ["--server", address]), *map(str, words[1:])],
                              capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout + done.stderr

    def job(**changes):
        keys = {"model_name_or_path": "tiny", "dataset": {"path": "good.jsonl"}, "max_seq_length": 64, "max_steps": 2} | changes
        file = directory / "job.yaml"
        file.write_text(json.dumps(keys))  # JSON is YAML
        return file

    def submit(*more, **changes):
        return command("finetune", "submit", job(**changes), "--watch", *more)

    failures = 0

    def case(name, said, *expected):
        nonlocal failures
        code, text = said
        missing = [pattern for pattern in expected if not re.search(pattern, text)]
        alive = command("finetune", "list")[0] == 0
        right = code != 0 and not missing and alive
        failures += not right
        shown = [line.strip() for line in text.strip().splitlines() if line.strip()]
        # What a job said before it failed is not part of the error.
        errors = [line for line in shown if not re.match(r"\d\d:\d\d:\d\d |job-\w+$", line)] or shown
        print(f"{'ok  ' if right else 'BAD '}{name} → exit {code}" + (f", lacks {missing}" if missing else "") +
              ("" if alive else ", the server is gone"))
        for line in errors[:8]:
            print("      ", line)
        print(flush=True)

    def full_disk():
        small = directory / "small"
        small.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True).returncode != 0:
            print("skipped: a full disk needs the right to mount a small one\n")
            return
        second = Service(directory)
        second.data_dir = small
        try:
            second.start()
            (small / "filler").write_bytes(bytes(2 << 20))
            with open(small / "filler2", "wb", buffering=0) as filler:
                try:
                    while filler.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            for _ in range(3):  # the first may still fit into what the database has set aside
                said = command("finetune", "submit", job(), server=f"127.0.0.1:{second.port}")
            case("a full disk", said, "(?i)no space|disk", "(?i)free")
            os.remove(small / "filler")
            code, text = command("finetune", "list", server=f"127.0.0.1:{second.port}")
            assert code == 0, f"after a full disk the server does not serve: {text}"
        finally:
            second.stop()
            subprocess.run(["umount", small], check=True)

    case("an unknown key", submit(learning_rat=1e-4), "learning_rat", "learning_rate")
    case("learning_rate: 5", submit(learning_rate=5), "learning_rate", "5e-5", "1e-0?6")
    case("a model that is not there", submit(model_name_or_path="absent"), "model_name_or_path", "absent", "model root")
    case("a directory that is no model", submit(model_name_or_path="no-model"), "model_name_or_path", "config.json")
    case("an architecture that is not supported", submit(model_name_or_path="bert"), "BertModel", "LlamaForCausalLM")
    case("a truncated safetensors file", submit(model_name_or_path="truncated"), r"model\.safetensors", "(?i)truncated|bytes")
    case("a path out of the roots", submit(dataset={"path": "../secret.jsonl"}), r"dataset\.path", r"\.\.", "data root")
    case("a path out of the roots by a link", submit(dataset={"path": "link.jsonl"}), r"dataset\.path", "link", "data root")
    case("an empty file", submit(dataset={"path": "empty.jsonl"}), r"empty\.jsonl|dataset", "(?i)empty|no record|no usable|0 records")
    case("a file whose every line is broken", submit(dataset={"path": "broken.jsonl"}), "INVALID_DATA|dataset", r"broken\.jsonl:1", "cut off")
    case("a target module that matches nothing", submit(lora={"target_modules": ["nothing_proj"]}), r"target_modules", "nothing_proj", "q_proj")
    case("r: 100000", submit(lora={"r": 100000}), r"lora\.r", "100000", "512")
    case("a sequence beyond the model", submit(max_seq_length=4096), "max_seq_length", "4096", "512")
    case("a template that raises", submit(dataset={"path": "good.jsonl", "chat_template": "raises.jinja"}), "roles must alternate")
    full_disk()
    case("a server that is not there", command("finetune", "list", server="127.0.0.1:1"), r"127\.0\.0\.1:1", "finetuned|server")
    case("a job that does not exist", command("finetune", "get", "job-doesnotexist"), "job-doesnotexist", "list|not")
    case("a second server on the same data directory",
         command("finetuned", "--data-dir", directory / "data", "--listen", "127.0.0.1:0", "--metrics-listen", "off"), "data", "another|already|use")
    stub = rpc.FineTuningServiceStub(service.channel())
    hostile = {"a model name of 1 MB": lambda spec: setattr(spec, "model_name_or_path", "x" * (1 << 20)),
               "a million data files": lambda spec: spec.dataset.path.extend(["f"] * 1_000_000),
               "a message of 80 MB": lambda spec: setattr(spec, "run_name", "x" * (80 << 20))}
    for name, fill in hostile.items():
        request = pb.CreateJobRequest(request_id=name)
        fill(request.spec)
        try:
            stub.CreateJob(request, timeout=60)
            said = (0, "accepted")
        except grpc.RpcError as error:
            said = (1, f"{error.code().name}: {error.details()[:300]}")
        case(f"a proto with hostile sizes: {name}", said, "INVALID_ARGUMENT|RESOURCE_EXHAUSTED", r"\d")
    assert command("finetune", "submit", job(), "--watch")[0] == 0, "a good job fails after all that"
    print("a good job succeeds after all that")
    service.stop()
    shutil.rmtree(directory)
    assert failures == 0, f"{failures} bad inputs were not answered as they should be"


if __name__ == "__main__":
    main()
