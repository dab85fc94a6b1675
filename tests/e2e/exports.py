"""What a job leaves, as the tools it is for see it: the adapter in PEFT, the merged model in transformers, both with the same
logits; an adapter that PEFT made, merged by us, with PEFT's own merged weights; an export that fails and is done again without
training again; answers of base and tuned model equal to transformers'.

    exports.py
"""
import hashlib
import json
import pathlib
import shutil
import tempfile
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from service import Service, api, make_model

# A row of the embedding that no text of this test uses: it does not disturb training, but fp16 cannot hold it.
UNUSED_ROW, TOO_LARGE = 49000, 1e5


def main():
    directory = pathlib.Path(tempfile.mkdtemp(prefix="finetuned-exports-"))
    pb, rpc, types = api(directory)
    make_model(directory / "models/tiny")
    untied = make_model(directory / "models/large-row", tie_word_embeddings=False)
    with torch.no_grad():
        untied.model.embed_tokens.weight[UNUSED_ROW] = TOO_LARGE
    untied.save_pretrained(directory / "models/large-row")
    (directory / "datasets").mkdir()
    with open(directory / "datasets/train.jsonl", "w") as file:
        for i in range(60):
            file.write(json.dumps({"instruction": f"what is {i} plus {i}?", "response": f"{i} plus {i} is {i + i}."}) + "\n")
    service = Service(directory)
    service.start()
    stub = rpc.FineTuningServiceStub(service.channel())

    def run(spec):
        request = pb.CreateJobRequest(request_id=str(time.time()))
        request.spec.CopyFrom(spec)
        return wait(stub.CreateJob(request, timeout=30).job_id)

    def wait(job_id):
        for _ in range(1200):
            job = stub.GetJob(pb.GetJobRequest(job_id=job_id), timeout=10)
            if job.state in (types.SUCCEEDED, types.FAILED, types.CANCELLED):
                return job
            time.sleep(0.25)
        raise TimeoutError(job_id)

    def succeeded(job):
        assert job.state == types.SUCCEEDED, job.failure
        return directory / f"data/jobs/{job.job_id}/artifacts"

    def training(model):
        spec = type(pb.CreateJobRequest().spec)()
        spec.kind, spec.model_name_or_path, spec.learning_rate, spec.max_steps = "finetune", model, 1e-2, 8
        spec.dataset.path.append("train.jsonl")
        spec.max_seq_length = 64
        spec.per_device_train_batch_size.value = spec.gradient_accumulation_steps.value = 2
        spec.evaluation.generate_samples = 1
        spec.evaluation.generation.max_new_tokens = 4
        spec.export.merged_dtype = "float32"
        return spec

    def load(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()

    tokenizer = AutoTokenizer.from_pretrained(directory / "models/tiny")
    texts = ["what is 7 plus 7?", "Ein Satz auf Deutsch.", "数字 12345 и буквы", "def f(x):\n    return x"]

    @torch.no_grad()
    def logits(model):
        return torch.cat([model(torch.tensor([tokenizer(text).input_ids])).logits[0] for text in texts]).double()

    def equal(got, want, what, tolerance=1e-5):
        error = ((got - want).norm() / want.norm()).item()
        print(f"{what}: largest relative difference {error:.1e} ({tolerance:.0e} allowed)", flush=True)
        assert error <= tolerance, what

    # 1. Everything in one job.
    spec = training("tiny")
    spec.export.formats.extend(["adapter", "merged", "gguf"])
    spec.export.gguf_types.extend(["f32", "q8_0"])
    job = run(spec)
    artifacts = succeeded(job)
    print(job.result.verdict, flush=True)
    assert [e.name for e in job.result.exports] == ["adapter", "merged", "gguf f32", "gguf q8_0"], job.result.exports
    kinds = {artifact.kind for artifact in job.result.artifacts}
    assert {"adapter", "merged", "gguf", "report", "summary", "metrics"} <= kinds, kinds
    paths = [artifact.path for artifact in job.result.artifacts]
    assert len(paths) == len(set(paths)), paths
    report = (artifacts / "report.html").read_text()
    for artifact in job.result.artifacts:
        assert artifact.sha256 == hashlib.sha256((artifacts / artifact.path).read_bytes()).hexdigest(), artifact.path
        assert artifact.kind in ("report", "summary") or artifact.sha256 in report, f"{artifact.path} is not in report.html"
    base = load(directory / "models/tiny")
    base_logits = logits(base)
    peft = PeftModel.from_pretrained(base, artifacts / "adapter").eval()
    tuned_logits = logits(peft)
    assert (tuned_logits - base_logits).norm() / base_logits.norm() > 1e-2, "the adapter changes nothing"
    equal(logits(load(artifacts / "merged")), tuned_logits, "merged in transformers against adapter in PEFT")
    assert AutoTokenizer.from_pretrained(artifacts / "merged").chat_template == tokenizer.chat_template

    # 2. An adapter PEFT made, with what PEFT can vary, merged by a job of its own.
    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=12, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
                        rank_pattern={"v_proj": 2, "layers.1.mlp.down_proj": 7}, alpha_pattern={"q_proj": 5})
    model = get_peft_model(load(directory / "models/tiny"), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory / "models/peft-adapter")
    spec = type(spec)()
    spec.kind, spec.model_name_or_path, spec.source.adapter_path = "merge", "tiny", "peft-adapter"
    spec.export.formats.append("merged")
    spec.export.merged_dtype = "float32"
    merged = load(succeeded(run(spec)) / "merged")
    reference = model.merge_and_unload()
    for (name, got), (_, want) in zip(merged.named_parameters(), reference.named_parameters()):
        assert torch.allclose(got, want, rtol=1e-6, atol=1e-6), name
    print("every weight of the merged model equals PEFT's merge_and_unload", flush=True)

    # A checkpoint that is not there.
    spec = type(spec)()
    spec.kind, spec.source.job_id, spec.source.checkpoint_step = "export", job.job_id, 77
    spec.export.formats.append("adapter")
    missing = run(spec)
    assert missing.state == types.FAILED and missing.failure.reason == types.INVALID_SPEC, missing.failure
    assert "step 77" in missing.failure.message and "step 8" in missing.failure.message, missing.failure

    # 3. Answers.
    spec = type(spec)()
    spec.kind, spec.source.job_id = "generate", job.job_id
    spec.source.prompts.append("what is 3 plus 3?")
    spec.evaluation.generation.max_new_tokens = 12
    answer = run(spec)
    succeeded(answer)
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "what is 3 plus 3?"}], add_generation_prompt=True, return_tensors="pt",
                                        return_dict=False)
    written = peft.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, ids.shape[1]:]
    expected = tokenizer.decode(written, skip_special_tokens=True)
    assert answer.result.samples[0].tuned == expected, (answer.result.samples[0].tuned, expected)
    print("the greedy answer equals transformers'", flush=True)

    # 4. A failed export, done again from there.
    spec = training("large-row")
    spec.export.formats.extend(["adapter", "gguf"])
    spec.export.gguf_types.append("f16")
    job = run(spec)
    assert job.state == types.FAILED and job.failure.reason == types.EXPORT_FAILED, job.failure
    assert job.failure.stage == types.EXPORTING, job.failure
    print("failed as it should:", job.failure.message, flush=True)
    artifacts = directory / f"data/jobs/{job.job_id}/artifacts"
    adapter = (artifacts / "adapter/adapter_model.safetensors").read_bytes()
    assert not list(artifacts.glob("gguf/*")) and (artifacts / "failure/failure.json").exists()
    stub.RerunJob(pb.RerunJobRequest(job_id=job.job_id, from_stage=types.EXPORTING, overrides=["export.gguf_types=[bf16]"]), timeout=30)
    job = wait(job.job_id)
    artifacts = succeeded(job)
    assert job.result.HasField("base") and job.result.HasField("tuned") and job.result.steps == 8, job.result
    assert (artifacts / "adapter/adapter_model.safetensors").read_bytes() == adapter and (artifacts / "gguf/model-bf16.gguf").exists()
    assert not (artifacts / "failure").exists()
    events = list(stub.WatchJob(pb.WatchJobRequest(job_id=job.job_id), timeout=30))
    steps = [event.metrics.step for event in events if event.HasField("metrics")]
    assert steps == list(range(1, 9)), f"steps were repeated: {steps}"
    reused = [event.stage.stage for event in events if event.HasField("stage") and event.stage.finished and event.stage.reused]
    assert types.TRAINING in reused, reused
    print("rerun from exporting: no step repeated, adapter equal in bytes", flush=True)
    service.stop()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
