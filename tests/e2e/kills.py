"""kill -9 of server, worker or both, and pauses, at random moments of real jobs: every job succeeds, the events have no gap and no repeat in
`seq`, every step's loss and gradient norm and the adapter's bytes equal those of a run that nobody disturbed.

    kills.py [--kills N] [--jobs N] [--seed N]
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import tempfile
import time

import grpc

from service import Service, api, make_model

JOB = {"max_steps": 60, "max_seq_length": 128, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "save_steps": 5,
       "eval_steps": 20}


def workers(directory):
    """Process ids of workers that run a job below the directory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"FINETUNED_PLAN={directory}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print("seed", options.seed, flush=True)
    chance = random.Random(options.seed)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="finetuned-kills-"))
    pb, rpc, types = api(directory)
    make_model(directory / "models/tiny")
    (directory / "datasets").mkdir()
    words = random.Random(5)
    with open(directory / "datasets/train.jsonl", "w") as file:
        for i in range(400):
            a, b = words.randrange(100), words.randrange(100)
            file.write(json.dumps({"instruction": f"{i}: what is {a} plus {b}?", "response": f"{a} plus {b} is {a + b}."}) + "\n")

    service = Service(directory)
    service.start()

    def stub():
        return rpc.FineTuningServiceStub(service.channel())

    def create(seed):
        request = pb.CreateJobRequest(request_id=f"{options.seed}-{time.time()}")
        spec = request.spec
        spec.model_name_or_path = "tiny"
        spec.dataset.path.append("train.jsonl")
        spec.seed, spec.learning_rate, spec.max_steps = seed, 5e-3, JOB["max_steps"]
        spec.max_seq_length = JOB["max_seq_length"]
        spec.per_device_train_batch_size.value = JOB["per_device_train_batch_size"]
        spec.gradient_accumulation_steps.value = JOB["gradient_accumulation_steps"]
        spec.save_steps.value, spec.eval_steps.value = JOB["save_steps"], JOB["eval_steps"]
        spec.evaluation.generate_samples = 1
        spec.evaluation.generation.max_new_tokens = 4
        return stub().CreateJob(request, timeout=30).job_id

    def state(job):
        try:
            return stub().GetJob(pb.GetJobRequest(job_id=job), timeout=10).state
        except grpc.RpcError:
            return None

    final = (types.SUCCEEDED, types.FAILED, types.CANCELLED)

    def wait(jobs, seconds=400):
        deadline = time.time() + seconds
        while time.time() < deadline:
            if all(state(job) in final for job in jobs):
                return
            time.sleep(0.5)
        raise TimeoutError(f"not finished: {jobs}; see {directory}")

    def facts(job):
        answer = stub().GetJob(pb.GetJobRequest(job_id=job), timeout=10)
        assert answer.state == types.SUCCEEDED, f"{job}: {answer.failure}"
        events, after = [], 0
        while True:
            page = stub().ListEvents(pb.ListEventsRequest(job_id=job, after_seq=after, page_size=1000), timeout=30)
            events += page.events
            if not page.next_after_seq:
                break
            after = page.next_after_seq
        assert [event.seq for event in events] == list(range(1, len(events) + 1)), f"{job}: gap or repeat in seq"
        steps = {}
        for event in events:
            if event.HasField("metrics"):
                values = (event.metrics.loss, event.metrics.grad_norm)
                # A step that an attempt repeats must give the same numbers again.
                assert steps.setdefault(event.metrics.step, values) == values, f"{job}: step {event.metrics.step} differs"
        assert sorted(steps) == list(range(1, JOB["max_steps"] + 1)), f"{job}: steps {sorted(steps)}"
        adapter = (directory / f"data/jobs/{job}/artifacts/adapter/adapter_model.safetensors").read_bytes()
        return steps, adapter, answer.attempt

    seeds = list(range(options.jobs))
    calm = [create(seed) for seed in seeds]
    wait(calm)
    expected = [facts(job) for job in calm]
    print(f"{len(calm)} undisturbed jobs, last loss {expected[0][0][JOB['max_steps']][0]:.4f}", flush=True)

    stormy = [create(seed) for seed in seeds]
    done = {"server": 0, "worker": 0, "both": 0, "pause": 0}
    while sum(done.values()) < options.kills:
        time.sleep(chance.uniform(0.3, 4))
        if all(state(job) in final for job in stormy):
            seeds += [len(seeds) % options.jobs]
            stormy.append(create(seeds[-1]))
            continue
        victim = chance.choice(list(done))
        if victim == "pause":
            job = chance.choice(stormy)
            try:
                stub().PauseJob(pb.PauseJobRequest(job_id=job), timeout=10)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error  # it runs no more, or not yet
                continue
            while state(job) == types.PAUSING:
                time.sleep(0.1)
            if state(job) == types.PAUSED:
                time.sleep(chance.uniform(0, 1))
                stub().ResumeJob(pb.ResumeJobRequest(job_id=job), timeout=10)
            done[victim] += 1
            print("paused and resumed", job, flush=True)
            continue
        if victim != "server":
            found = workers(directory)
            if not found:
                continue
            for pid in found:
                os.kill(pid, signal.SIGKILL)
        if victim != "worker":
            service.kill()
            time.sleep(chance.uniform(0, 2))
            service.start()
        done[victim] += 1
        print("killed", victim, {job: state(job) for job in stormy}, flush=True)
    wait(stormy)
    for job, seed in zip(stormy, seeds):
        steps, adapter, attempts = facts(job)
        assert steps == expected[seed][0], f"{job}: losses differ from the undisturbed run"
        assert adapter == expected[seed][1], f"{job}: the adapter differs from the undisturbed run"
        print(f"{job}: {attempts} attempts, {len(steps)} steps and the adapter equal to the undisturbed run", flush=True)
    print(f"disturbed {sum(done.values())} times {done}: nothing lost, nothing repeated, {len(stormy)} jobs equal to the bit")
    service.stop()
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
